"""A client that costs little: POSTs of ready bytes over kept connections, answers as bytes.

The same for every side, so that what the client costs weighs the same on each.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools

RECEIPT = b"x-penstock-receipt"


class HttpError(Exception):
    """A status other than 200, or a connection that was closed before the answer's end."""


@dataclass
class Answer:
    """An answer, also while it arrives.

    Attributes:
        status: of HTTP; 0 until it is known.
        body: as far as it has arrived.
        receipt: the header of that name; empty where there is none.
        first: resolved at the first piece of the body.
        whole: resolved at the end.
    """

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    receipt: str = ""
    first: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    whole: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Connection(asyncio.Protocol):
    """One connection; takes one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass.

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        for future in (answer.first, answer.whole):
            if not future.done():
                future.set_exception(HttpError("the connection was closed"))
                future.exception()  # Not every caller waits for both.

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if name == RECEIPT and self._answer is not None:
            self._answer.receipt = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        answer = self._answer
        if answer is not None:
            answer.body += body
            if not answer.first.done():
                answer.first.set_result(None)

    def on_message_complete(self) -> None:
        """See httptools."""
        answer, self._answer = self._answer, None
        if answer is not None and not answer.whole.done():
            if not answer.first.done():
                answer.first.set_result(None)
            answer.whole.set_result(None)
        self._parser = httptools.HttpResponseParser(self)

    def begin(self, request: bytes) -> Answer:
        """Send a request's bytes."""
        self._answer = answer = Answer()
        self._transport.write(request)
        return answer

    async def ask(self, request: bytes) -> Answer:
        """The whole answer.

        Raises:
            HttpError: another status than 200, or the connection was closed.
        """
        answer = self.begin(request)
        await answer.whole
        if answer.status != 200:
            raise HttpError(f"status {answer.status}: {bytes(answer.body[:300])!r}")
        return answer

    @property
    def is_open(self) -> bool:
        """Whether it can take a request."""
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Close it at once, as a caller does who has left."""
        self._transport.abort()


@dataclass
class HttpClient:
    """Kept connections to one address, as many as there were calls at once.

    Attributes:
        address: `host:port`.
        headers: of every request.
        tls: with which to connect; None for plaintext.
    """

    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    _idle: list[Connection] = field(default_factory=list)

    def post(self, path: str, body: bytes) -> bytes:
        """The bytes of a POST."""
        return self._head("POST", path, len(body)) + body

    def _head(self, method: str, path: str, length: int) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: {self.address}",
            "content-type: application/json",
            f"content-length: {length}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    async def get(self, path: str) -> bytes:
        """The body of a GET."""
        return await self.send(self._head("GET", path, 0))

    async def send(self, request: bytes) -> bytes:
        """Send a request on an idle connection or a new one; the body of the answer.

        Raises:
            HttpError: see `Connection.ask`.
        """
        return bytes((await self.ask(request)).body)

    async def ask(self, request: bytes) -> Answer:
        """Send a request on an idle connection or a new one; the whole answer.

        Raises:
            HttpError: see `Connection.ask`.
        """
        connection = await self.connection()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    async def connection(self) -> Connection:
        """An idle connection or a new one, for one request."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, host, int(port), ssl=self.tls))[1]

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
