"""The callee's side of item streams over a unix socket; see `penstock.rpc.frame_connection`."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from penstock.rpc.auth import CallerMetadata
from penstock.rpc.errors import OK, Fault, invalid, released, to_item_status, unimplemented
from penstock.rpc.frame_connection import (
    END,
    FRAME,
    STATUS,
    FrameConnection,
    read_greeting,
    socket_name,
)

log = logging.getLogger(__name__)
GREETING_S = 5.0
"""How long a caller may take to send its greeting."""
Serve = Callable[[CallerMetadata, FrameConnection], Awaitable[None]]
"""Serves one stream to its end; raises Fault where it is refused or given up."""


class ServedFrames:
    """One stream, as gRPC's own look to a Session. The caller is told with the first frame that its
    stream is accepted.
    """

    def __init__(self, connection: FrameConnection, request: Callable[[bytes], Any]) -> None:
        self._connection = connection
        self._request = request
        self._is_accepted = False

    async def read(self) -> Any:
        """The next frame, or grpc.aio.EOF.

        Raises:
            Fault: INVALID_ARGUMENT where something else has come.
        """
        part = await self._connection.read()
        if part is None or part.kind == END:
            return grpc.aio.EOF
        if part.kind != FRAME:
            raise invalid("", f"a stream brings frames, not what is of kind {part.kind}")
        try:
            return self._request(part.content)
        except DecodeError:
            raise invalid("", "a frame cannot be read") from None

    async def write(self, frame: Message) -> None:
        """Send a frame; returns once more can be sent.

        Raises:
            ConnectionError: the caller has gone.
        """
        if not self._is_accepted:
            self._is_accepted = True
            await self._connection.write(STATUS, OK.SerializeToString())
        await self._connection.write(FRAME, frame.SerializeToString())


class FramePort:
    """Listens beside a port. Owner: whoever started it must `stop` it.

    Args:
        address: `host:port` or `unix:/path` of the port that it stands beside.
        services: what serves the streams of each service, by its full name.
    """

    def __init__(self, address: str, services: Mapping[str, Serve]) -> None:
        self._name = socket_name(address)
        self._services = services
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._context = contextvars.Context()

    async def start(self) -> None:
        """Listen, where there can be such a socket; callers go to the port where there is none."""
        if not (self._name and self._services):
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._remove_path()  # of a process that has ended: the port beside it is ours
            listener.bind(self._name)
        except OSError as error:
            listener.close()
            log.warning("no item streams over %s: %s", self._name.lstrip("\0"), error)
            return
        loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()
        self._server = await loop.create_unix_server(self._accept, sock=listener)

    def _remove_path(self) -> None:
        if not self._name.startswith("\0"):
            Path(self._name).unlink(missing_ok=True)

    def refuse(self) -> None:
        """Take no more streams."""
        server, self._server = self._server, None
        if server is not None:
            self._remove_path()
            server.close()

    async def stop(self, grace_s: float | None = None) -> None:
        """Take no more streams, give those that are open `grace_s` seconds, end them."""
        self.refuse()
        if self._serving and grace_s:
            await asyncio.wait(self._serving, timeout=grace_s)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self) -> FrameConnection:
        connection = FrameConnection()
        serving = self._serve(connection)
        task = asyncio.get_running_loop().create_task(serving, context=self._context.copy())
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # Who leaves without an end is waited for no more, as over gRPC.
        connection.lost.add_done_callback(lambda _: task.cancel())
        return connection

    async def _serve(self, connection: FrameConnection) -> None:
        """Serve the stream of a connection and close it."""
        try:
            async with asyncio.timeout(GREETING_S):
                part = await connection.read()
            if connection.is_over or not connection.is_of_this_user:
                return
            service, metadata = read_greeting(part)
            serve = self._services.get(service)
            if serve is None:
                raise unimplemented(f"{service} is not served here")
            await serve(CallerMetadata.received(metadata), connection)
        except Fault as fault:
            await _tell(connection, released(fault))
        except (TimeoutError, ConnectionError):
            connection.abort()
        finally:
            connection.close()


async def _tell(connection: FrameConnection, fault: Fault) -> None:
    try:
        await connection.write(STATUS, to_item_status(fault).SerializeToString())
    except ConnectionError:
        connection.abort()
