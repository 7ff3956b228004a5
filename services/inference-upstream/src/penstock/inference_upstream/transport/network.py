"""The network as httpcore uses it, by anyio: httpcore's own backend but for what each call costs.

httpcore asks every idle connection before and after each call whether it has become readable, which
means that the upstream has closed it. Its own backend looks the socket up anew each time, through
all attributes of the stream, and opens a cancel scope around reads and writes that have no timeout.
Here the socket is looked up once, and only a timeout opens a scope.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import anyio.abc
import anyio.streams.tls
import httpcore
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

STREAM_OVER = (anyio.BrokenResourceError, anyio.ClosedResourceError)
NOT_CONNECTED = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError)


class AnyioBackend(httpcore.AsyncNetworkBackend):
    """Opens connections over TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore; neither a local address nor options of the socket are used here."""
        with _connecting(timeout):
            return AnyioStream(await anyio.connect_tcp(host, port, local_host=local_address))

    async def sleep(self, seconds: float) -> None:
        """See httpcore."""
        await anyio.sleep(seconds)


class AnyioStream(httpcore.AsyncNetworkStream):
    """One connection, with or without TLS. Owner: the httpcore connection that opened it."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.extra(SocketAttribute.raw_socket)
        self._readable = select.poll()
        self._readable.register(self._socket.fileno(), select.POLLIN)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See httpcore; empty at the end.

        Raises:
            httpcore.ReadTimeout, httpcore.ReadError: as there.
        """
        try:
            if timeout is None:
                return await self._stream.receive(max_bytes)
            with anyio.fail_after(timeout):
                return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise httpcore.ReadTimeout(error) from error
        except STREAM_OVER as error:
            raise httpcore.ReadError(error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See httpcore.

        Raises:
            httpcore.WriteTimeout, httpcore.WriteError: as there.
        """
        if not buffer:
            return
        try:
            if timeout is None:
                await self._stream.send(buffer)
                return
            with anyio.fail_after(timeout):
                await self._stream.send(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(error) from error
        except STREAM_OVER as error:
            raise httpcore.WriteError(error) from error

    async def aclose(self) -> None:
        """See httpcore."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore; a failed handshake closes the connection."""
        with _connecting(timeout):
            try:
                wrapped = await TLSStream.wrap(
                    self._stream,
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,
                    server_side=False,
                )
            except Exception:
                await self.aclose()
                raise
        return AnyioStream(wrapped)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore; of the connection's addresses nothing is asked here."""
        match info:
            case "is_readable":
                # A socket that is closed has no descriptor, and no more to say than one at its end.
                return self._socket.fileno() < 0 or bool(self._readable.poll(0))
            case "ssl_object":
                return self._stream.extra(TLSAttribute.ssl_object, None)
            case "socket":
                return self._socket
        return None


@contextlib.contextmanager
def _connecting(timeout: float | None) -> Iterator[None]:
    """Failures as httpcore names them while a connection is set up."""
    try:
        with anyio.fail_after(timeout):
            yield
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(error) from error
    except NOT_CONNECTED as error:
        raise httpcore.ConnectError(error) from error
