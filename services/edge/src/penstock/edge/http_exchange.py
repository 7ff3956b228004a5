"""One HTTP request and its response, over bare ASGI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Admit = Callable[[int], Awaitable[None]]
JSON_TYPE = b"application/json"
EVENT_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
"""Without them proxies keep events back."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BodyTooLarge(Exception):
    """The body has more bytes than are taken."""


class BodyTooSlow(Exception):
    """The body was not there in time."""


class ClientLeft(Exception):
    """The client closed its connection, or it was cut since the client reads nothing any more."""


class HttpExchange:
    """A request that came in, and the way to answer it.

    What is sent waits while the client's connection can take no more. The port cuts the connection
    of a client that reads nothing, which ends that wait (`ConnectionLimits.unread_s`).

    Attributes:
        method: in upper case.
        path: without the query.
        query: its parameters; the last one of a name.
        headers: by name in lower case; the last one of a name, all of `authorization`.
        keys: the values of all headers that carry a key.
    """

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        query = scope.get("query_string", b"")
        self.query = dict(parse_qsl(query.decode("latin-1"))) if query else {}
        self.headers: dict[str, str] = {}
        self.header_bytes = 0
        self.keys: set[str] = set()
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            self.headers[name] = value
            self.header_bytes += len(raw_name) + len(raw_value)
            if key := _key_of(name, value):
                self.keys.add(key)
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self.has_begun = False
        self._receive, self._send = receive, send

    def add_header(self, name: str, value: str) -> None:
        """Send a header with the response; what could end the line is left out."""
        safe = _CONTROL.sub("", value).encode("latin-1", "replace")
        self.extra_headers.append((name.encode("latin-1"), safe))

    async def body(self, most_bytes: int, within_s: float, admit: Admit) -> bytes:
        """The request's body.

        Args:
            most_bytes: that are taken.
            within_s: seconds in which it must come.
            admit: is told how many bytes the body has or will have, each time that this grows, and
                raises where they are not taken.

        Raises:
            BodyTooLarge, BodyTooSlow, ClientLeft: see there.
        """
        declared = self.headers.get("content-length", "")
        expected = int(declared[:20]) if declared.isdecimal() else 0
        if expected > most_bytes:
            raise BodyTooLarge
        try:
            async with asyncio.timeout(within_s):
                await admit(expected)
                return await self._read(most_bytes, expected, admit)
        except TimeoutError:
            raise BodyTooSlow from None

    async def _read(self, most_bytes: int, expected: int, admit: Admit) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            if size > most_bytes:
                raise BodyTooLarge
            if size > expected:
                await admit(size)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def unless_left(self, answer: Awaitable[None]) -> None:
        """Answer, unless the client leaves first: then the answer is cancelled. Call it once the
        body is read.

        Raises:
            ClientLeft: it has.
        """
        answering: asyncio.Task[Any] | None = current_task()

        async def leave() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            if answering is not None:
                answering.cancel()

        leaving = asyncio.create_task(leave())
        try:
            await answer
        except asyncio.CancelledError:
            if not leaving.done():
                raise
            current_task().uncancel()
            raise ClientLeft from None
        finally:
            answering = None
            leaving.cancel()

    async def reply(self, status: int, body: bytes, content_type: bytes = JSON_TYPE) -> None:
        """Send a whole response."""
        self.has_begun = True
        headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            *self.extra_headers,
        ]
        shown = b"" if self.method == "HEAD" else body
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": shown})

    async def begin_events(self) -> None:
        """Begin a response of events."""
        self.has_begun = True
        headers = [*EVENT_HEADERS, *self.extra_headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send_events(self, frames: bytes) -> None:
        """Send frames; returns once the client's connection can take more."""
        await self._send({"type": "http.response.body", "body": frames, "more_body": True})

    async def end_events(self) -> None:
        """End a response of events."""
        await self._send({"type": "http.response.body", "body": b""})


def current_task() -> asyncio.Task[Any]:
    """The task that serves the request."""
    task = asyncio.current_task()
    assert task is not None, "requests are served in tasks"
    return task


def _key_of(name: str, value: str) -> str:
    """The key that a header carries; empty for other headers."""
    if name == "x-api-key":
        return value.strip()
    if name != "authorization":
        return ""
    scheme, _, key = value.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
