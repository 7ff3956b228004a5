"""Telling an HTTP/2 server that a caller has left: RST_STREAM, which httpcore 1.0 does not send.

HTTP/1.1's closed connection says it.

The one place that reaches into httpcore: the library has no public way to end one stream of a
shared connection, and without one an upstream goes on computing for nobody. A test with a real
HTTP/2 server notices when a newer httpcore differs.
"""

from __future__ import annotations

import contextlib
from typing import Any

import h2.errors
import h2.exceptions
import httpcore


async def reset_stream(pool: httpcore.AsyncConnectionPool, trace: object, stream_id: int) -> None:
    """End the stream of the request that has this trace extension; nothing where the connection is
    over.
    """
    for held in list(pool._requests):
        connection: Any = getattr(held.connection, "_connection", None)
        if held.request.extensions.get("trace") != trace or not isinstance(
            connection, httpcore.AsyncHTTP2Connection
        ):
            continue
        with contextlib.suppress(
            h2.exceptions.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException
        ):
            connection._h2_state.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            await connection._write_outgoing_data(held.request)
