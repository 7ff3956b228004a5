"""A small HTTP/1.1 server over TLS, for requests with a body that are answered by a JSON body."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import httptools

Answer = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
"""The status and the body for a path and a body."""


class _Connection(asyncio.Protocol):
    """One connection; takes one request after the other."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", bytearray()
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._body = b"", bytearray()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        work = self._reply(self._path.decode("latin-1"), bytes(self._body))
        self._answering = asyncio.get_running_loop().create_task(work)

    async def _reply(self, path: str, body: bytes) -> None:
        status, answer = await self._answer(path, body)
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n"
        self._transport.write(f"{head}content-length: {len(answer)}\r\n\r\n".encode() + answer)


@contextlib.asynccontextmanager
async def serve_http(answer: Answer, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve on a free port of this machine; gives `host:port`."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answer), "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
