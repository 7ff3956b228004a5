"""Ends one HTTP/2 stream by RST_STREAM, which httpcore 1.0 does not send.

Without it an upstream goes on computing an answer that nobody reads. Over HTTP/1.1 closing the
connection has the same effect.

This is the one place that uses private attributes of httpcore, which has no public way to end one
stream of a shared connection. A test with a real HTTP/2 server fails if a newer httpcore differs.
"""

from __future__ import annotations

import contextlib
from typing import Any

import h2.errors
import h2.exceptions
import httpcore

CONNECTION_OVER = (h2.exceptions.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException)


async def reset_stream(pool: httpcore.AsyncConnectionPool, trace: object, stream_id: int) -> None:
    """End the stream of the request that carries this trace extension; do nothing where its
    connection is over.
    """
    for pending in list(pool._requests):
        connection: Any = getattr(pending.connection, "_connection", None)
        is_http2 = isinstance(connection, httpcore.AsyncHTTP2Connection)
        if is_http2 and pending.request.extensions.get("trace") == trace:
            with contextlib.suppress(*CONNECTION_OVER):
                connection._h2_state.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
                await connection._write_outgoing_data(pending.request)
