"""Termination notices over HTTP, for webhooks."""

from __future__ import annotations

import asyncio
import hmac
import json
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock.scaler.pools.autoscaler import NoticeOutcome
from penstock.scaler.spot.notices import BadNotice, Notice, parse_notices
from penstock.service.clock import Clock
from penstock.service.program import CannotStart

MAX_BYTES = 64 << 10
READ_TIMEOUT_S = 5.0
HandleNotice = Callable[[Notice], Awaitable[NoticeOutcome]]


@dataclass(frozen=True)
class _Request:
    """An HTTP request. `headers`: by lower-case name. `body`: empty where its length is not stated
    or above MAX_BYTES.
    """

    first_line: str
    headers: dict[str, str]
    body: bytes


class NoticePort:
    """Serves `POST /notice[?instance=ID]`: a JSON body, and `authorization: Bearer SECRET`.

    Owner: whoever started it awaits `stop`.

    Args:
        listen: host:port; port 0 takes a free one, see `address`.
        handle: called with each notice.
        secret: empty refuses everybody.
    """

    def __init__(self, listen: str, handle: HandleNotice, secret: str, clock: Clock) -> None:
        self.address = listen
        self._handle = handle
        self._secret = secret
        self._clock = clock
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            CannotStart: the address cannot be bound.
        """
        host, _, port = self.address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host or "127.0.0.1", int(port), limit=MAX_BYTES
            )
        except (OSError, ValueError) as error:
            raise CannotStart(
                f"cannot listen on {self.address}: {error}; set PENSTOCK_NOTICE_LISTEN"
            ) from None
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Stop serving; a notice that is being read is not waited for."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                request = await _read_request(reader)
            writer.write(await self._answer(request))
            await writer.drain()
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            pass  # the client sent no request or has gone: nobody would read an answer
        finally:
            writer.close()

    async def _answer(self, request: _Request) -> bytes:
        method, _, rest = request.first_line.partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        if (method, path) != ("POST", "/notice"):
            return _response("404 Not Found", {"error": "notices go to POST /notice"})
        if not self._is_authorised(request):
            return _response("401 Unauthorized", {"error": "needs authorization: Bearer SECRET"})
        instance = urllib.parse.parse_qs(query).get("instance", [""])[0]
        try:
            notices = parse_notices(json.loads(request.body), instance, self._clock.time())
        except BadNotice as error:
            return _response("400 Bad Request", {"error": str(error)})
        except (ValueError, RecursionError):
            return _response("400 Bad Request", {"error": "the body is not JSON"})
        outcomes = [await self._handle(notice) for notice in notices]
        counts: dict[str, object] = {
            "notices": len(notices),
            "replaced": sum(outcome.replaced for outcome in outcomes),
            "draining": sum(outcome.draining for outcome in outcomes),
        }
        return _response("200 OK", counts)

    def _is_authorised(self, request: _Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        expected = f"Bearer {self._secret}".encode()
        return bool(self._secret) and hmac.compare_digest(given, expected)


async def _read_request(reader: asyncio.StreamReader) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first_line, *lines = head.split("\r\n")
    fields = [line.partition(":") for line in lines]
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    length = headers.get("content-length", "")
    body = b""
    if length.isdigit() and int(length) <= MAX_BYTES:
        body = await reader.readexactly(int(length))
    return _Request(first_line, headers, body)


def _response(status: str, answer: dict[str, object]) -> bytes:
    body = json.dumps(answer).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: "
        f"{len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
