"""Item streams between processes of one machine without gRPC: whole frames over a unix socket.

gRPC's Python server and client wake a thread of their own for each event of a stream, which then
wakes the event loop. Between processes of one user on one machine the loop can read the socket
itself. So a service that listens on a loopback port also listens on an abstract unix socket named
after that port, and one that listens on a unix socket also on another one beside it. Item streams
go there; everything else, and whoever comes from elsewhere, goes to the port. The frames are those
of `Exchange`.

A frame is five bytes, its length and its kind, and then its content. The caller begins with its
greeting: the service and the metadata that gRPC would carry. The callee answers with a status, OK
or why it refuses the stream, and ends a stream that it gives up with another one.

Abstract names belong to the network namespace, as ports do, and paths to the file system. Both
sides check that the other one is of their own user; what a caller may do is decided by its
metadata, as at the port.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections import deque
from typing import NamedTuple, cast

import orjson
from penstock.rpc.errors import invalid
from penstock.service.socket_paths import MAX_SOCKET_PATH_BYTES

HEADER = struct.Struct("<IB")
"""Bytes of the content, and its kind."""
FRAME, STATUS, GREETING, END = range(4)
"""A frame of the service's Exchange; an ItemStatus; what a caller begins with; and, empty, that a
caller sends no more. A connection that is closed without it ends its work.
"""
MAX_CONTENT_BYTES = 64 << 20
MAX_UNREAD_BYTES = 4 << 20
"""Bytes that wait for their reader before no more are taken from the socket."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PEER = struct.Struct("3i")
"""Process, user and group of a socket's other side (unix(7), SO_PEERCRED)."""


class Part(NamedTuple):
    """What came in one piece."""

    kind: int
    content: bytes


def socket_name(address: str) -> str:
    """The socket for frames beside a loopback `host:port` or a `unix:/path`: an abstract name,
    which begins with a zero, or a path. Empty where there can be none.
    """
    if address.startswith("unix:/") and sys.platform == "linux":
        beside = f"{address.removeprefix('unix:')}.frames"
        return beside if len(beside.encode()) <= MAX_SOCKET_PATH_BYTES else ""
    host, _, port = address.rpartition(":")
    local = sys.platform == "linux" and host in LOOPBACK and port.isdecimal() and port != "0"
    return f"\0penstock-frames-{port}" if local else ""


def greeting(service: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """What a caller begins with: the service's full name and who calls."""
    return orjson.dumps([service, [list(pair) for pair in metadata]])


def read_greeting(part: Part | None) -> tuple[str, list[tuple[str, str]]]:
    """The service and the metadata of a greeting.

    Raises:
        Fault: INVALID_ARGUMENT where it is none.
    """
    try:
        if part is None or part.kind != GREETING:
            raise ValueError
        service, pairs = orjson.loads(part.content)
        return str(service), [(str(name), str(value)) for name, value in pairs]
    except (ValueError, TypeError):
        raise invalid("", "the stream begins without a greeting") from None


class FrameConnection(asyncio.Protocol):
    """One connection, either side. Owner: whoever opened or accepted it, who must `abort` it, or
    `close` it once all is sent.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._parts: deque[Part] = deque()
        self._unread_bytes = 0
        self._has_ended = False
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the connection is closed."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    @property
    def is_of_this_user(self) -> bool:
        """Whether the other side's process is of the user of this one."""
        peer = cast(asyncio.Transport, self._transport).get_extra_info("socket")
        packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        return bool(PEER.unpack(packed)[1] == os.getuid())

    async def read(self) -> Part | None:
        """What comes next; None where the other side sends no more. One reader at a time."""
        while not self._parts:
            if self._has_ended:
                return None
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        part = self._parts.popleft()
        self._unread_bytes -= len(part.content)
        if self._is_paused and not self._parts and not self.is_over:
            self._is_paused = False
            cast(asyncio.Transport, self._transport).resume_reading()
        return part

    async def write(self, kind: int, content: bytes) -> None:
        """Send; returns once more can be sent.

        Raises:
            ConnectionError: the connection is closed.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(HEADER.pack(len(content), kind) + content)
        if not self._may_write.is_set():
            await self._may_write.wait()

    def close(self) -> None:
        """Close it once all is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        if not self._take_parts():
            self.abort()
            return
        if self._unread_bytes > MAX_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()
        self._wake()

    def _take_parts(self) -> bool:
        """Take what has come whole; False where something is too large to come."""
        buffer, start = self._buffer, 0
        while len(buffer) - start >= HEADER.size:
            size, kind = HEADER.unpack_from(buffer, start)
            if size > MAX_CONTENT_BYTES:
                return False
            begin, end = start + HEADER.size, start + HEADER.size + size
            if len(buffer) < end:
                break
            self._parts.append(Part(kind, bytes(buffer[begin:end])))
            self._unread_bytes += size
            start = end
        del buffer[:start]
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end()
        self._may_write.set()
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._may_write.set()

    def _end(self) -> None:
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
