"""One HTTP/1.1 connection to an upstream, as a protocol of the event loop (RFC 9112).

The loop tells it what arrives and when the upstream closes, so nobody has to ask. httptools reads
responses. It carries one exchange at a time: `send`, then the response's head, then its body piece
by piece; a reader that is behind stops the upstream. After the exchange it is either free for the
next one or has to be closed, which `is_reusable` says.

Failures are httpcore's exceptions, which this service knows from HTTP/2 as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httpcore
import httptools

MAX_HEAD_BYTES = 100 << 10
"""Bytes before the body of a response; interim responses count too."""
MAX_UNREAD_BYTES = 64 << 10
"""Bytes of a body that wait for their reader before no more are taken from the upstream."""
CLOSE_S = 0.5
"""How long an upstream may take to close its side, over TLS, before the connection is cut."""
FIRST_FINAL_STATUS = 200
"""Below are interim responses, which another one follows (RFC 9110, 15.2)."""
CLOSED_EARLY = "the server closed the connection before the end of its response"


class Http1Connection(asyncio.Protocol):
    """One connection. Owner: its pool."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._readable = select.poll()
        self._gone = asyncio.Event()
        self._is_over = False
        self._waiter: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget the last exchange."""
        self._is_asked = False
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._head: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._unread_bytes = 0
        self._failure: Exception | None = None
        self._is_interim = False
        self._ends_with_connection = False
        self._has_head = False
        self._is_complete = False
        self._keeps_alive = False
        self._is_paused = False

    @property
    def is_over(self) -> bool:
        """Whether it is closed, or being closed, by either side."""
        return self._is_over

    @property
    def is_reusable(self) -> bool:
        """Whether its exchange has ended so that another one can follow."""
        if self._is_over or self._is_paused or not (self._is_complete and self._keeps_alive):
            return False
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def is_quiet(self) -> bool:
        """Whether nothing has arrived that the loop has not seen: of a connection that nobody uses,
        that can only be its end.
        """
        return not self._is_over and not self._readable.poll(0)

    def send(self, head: bytes, content: bytes) -> None:
        """Begin an exchange with a request, whose content is not copied."""
        self._begin()
        self._is_asked = True
        cast(asyncio.Transport, self._transport).writelines((head, content))

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers of the response.

        Raises:
            httpcore.ReadError, httpcore.RemoteProtocolError: it broke, or is no HTTP.
        """
        while not self._has_head:
            await self._more()
        return self._status, self._head

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they come.

        Raises:
            httpcore.ReadError, httpcore.RemoteProtocolError: it broke before its end.
        """
        while True:
            if self._pieces:
                yield self._taken()
            elif self._is_complete:
                return
            else:
                await self._more()

    def _taken(self) -> bytes:
        piece = self._pieces.popleft()
        self._unread_bytes -= len(piece)
        if self._is_paused and not self._pieces and not self._is_over:
            self._is_paused = False
            cast(asyncio.Transport, self._transport).resume_reading()
        return piece

    async def _more(self) -> None:
        """Wait until something arrives; raises how the connection ended where nothing will."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: Exception) -> None:
        if not self._is_complete and self._failure is None:
            self._failure = failure
        self.cut()
        self._wake()

    def cut(self) -> None:
        """Close it at once."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close it, and wait until it is closed."""
        self._is_over = True
        if self._transport is None:
            return
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._gone.wait()
        self._transport.abort()

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._is_complete or not self._is_asked:
            self.cut()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpcore.RemoteProtocolError(str(error)))
            return
        self._head_bytes += 0 if self._has_head else len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail(httpcore.RemoteProtocolError("the head of the response is too large"))
            return
        if self._unread_bytes > MAX_UNREAD_BYTES and not self._is_paused and not self._is_over:
            self._is_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See asyncio; None closes this side as well."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end(exc)
        self._gone.set()

    def _end(self, exc: Exception | None) -> None:
        self._is_over = True
        if self._has_head and self._ends_with_connection and exc is None:
            self._is_complete = True
        if not self._is_complete and self._failure is None:
            early = httpcore.RemoteProtocolError(CLOSED_EARLY)
            self._failure = early if exc is None else httpcore.ReadError(exc)
        self._wake()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """A message begins: behind the response it is one that nobody asked for."""
        if self._is_complete:
            self._keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those after the body are not kept."""
        if not self._has_head:
            self._head.append((name, value))

    def on_headers_complete(self) -> None:
        """The head has ended: of the response, or of an interim one before it."""
        if self._is_complete:
            return
        self._status = self._parser.get_status_code()
        self._is_interim = self._status < FIRST_FINAL_STATUS
        if self._is_interim:
            self._head = []
            return
        names = {name.lower() for name, _ in self._head}
        self._ends_with_connection = not names & {b"content-length", b"transfer-encoding"}
        self._has_head = True

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if not self._is_complete:
            self._pieces.append(piece)
            self._unread_bytes += len(piece)

    def on_message_complete(self) -> None:
        """The response has ended, or an interim one."""
        if not self._is_interim and not self._is_complete:
            self._is_complete = True
            self._keeps_alive = bool(self._parser.should_keep_alive())
