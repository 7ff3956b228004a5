"""The caller's side of an item stream over a unix socket; see `penstock.rpc.frame_connection`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from penstock.api.common.v1 import common_pb2
from penstock.rpc.errors import Fault, from_item_status, unavailable
from penstock.rpc.frame_connection import (
    END,
    FRAME,
    GREETING,
    STATUS,
    FrameConnection,
    Part,
    greeting,
    socket_name,
)

ACCEPT_S = 5.0
"""How long the other side may take to accept a stream. Who waits for a hung one is told sooner, by
the unanswered ping.
"""


class FrameStream:
    """One stream, as gRPC's own look to an ItemStream. It was accepted when it is made."""

    def __init__(self, connection: FrameConnection, response: Callable[[bytes], Any]) -> None:
        self._connection = connection
        self._response = response

    async def initial_metadata(self) -> None:
        """Nothing to wait for."""

    async def read(self) -> Any:
        """The next frame, or grpc.aio.EOF.

        Raises:
            Fault: why the other side gave the stream up.
        """
        part = await self._connection.read()
        if part is None:
            return grpc.aio.EOF
        if part.kind == STATUS:
            raise _fault_of(part) or unavailable("the stream was closed")
        if part.kind != FRAME:
            raise unavailable(f"the stream brought something of kind {part.kind}, not a frame")
        return self._response(part.content)

    async def write(self, frame: Message) -> None:
        """Send a frame; returns once more can be sent."""
        await self._connection.write(FRAME, frame.SerializeToString())

    async def done_writing(self) -> None:
        """Say that no more frames are sent."""
        await self._connection.write(END, b"")

    def done(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._connection.is_over

    def cancel(self) -> None:
        """End the stream at once."""
        self._connection.abort()


async def open_frames(
    address: str,
    service: str,
    metadata: tuple[tuple[str, str], ...],
    response: Callable[[bytes], Any],
) -> FrameStream | None:
    """A stream over the socket beside an address; None where nobody of this user listens there.

    Args:
        address: of the service's port.
        service: its full name.
        metadata: who calls.
        response: reads a frame.

    Raises:
        Fault: why the stream is refused; UNAVAILABLE where it was not accepted in time.
    """
    connection = await _connected(socket_name(address))
    if connection is None:
        return None
    try:
        async with asyncio.timeout(ACCEPT_S):
            await connection.write(GREETING, greeting(service, metadata))
            answer = await connection.read()
        if answer is None or answer.kind != STATUS:
            raise unavailable(f"{service}: the stream was closed")
        if (fault := _fault_of(answer)) is not None:
            if fault.code is grpc.StatusCode.UNIMPLEMENTED:
                connection.abort()
                return None  # a public service of that port, which takes callers by gRPC only
            raise fault
    except (TimeoutError, ConnectionError):
        connection.abort()
        raise unavailable(f"{service}: the stream was not accepted") from None
    except BaseException:
        connection.abort()
        raise
    return FrameStream(connection, response)


async def _connected(name: str) -> FrameConnection | None:
    """A connection to an abstract socket of this user; None where there is none."""
    if not name:
        return None
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.connect(name)  # at once, or not at all
    except OSError:
        opened.close()
        return None
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_unix_connection(FrameConnection, sock=opened)
    if connection.is_of_this_user:
        return connection
    connection.abort()
    return None


def _fault_of(part: Part) -> Fault | None:
    """The fault that a status tells of; None for OK."""
    status = common_pb2.ItemStatus.FromString(part.content)
    return from_item_status(status) if status.code else None
