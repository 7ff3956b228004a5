"""How notices come in from outside: a small HTTP door for webhooks."""

from __future__ import annotations

import asyncio
import hmac
import json
import urllib.parse
from collections.abc import Awaitable, Callable

from penstock.scaler.spot.notices import BadNotice, Notice, parse
from penstock.service.clock import Clock
from penstock.service.program import CannotStart

MOST_BYTES = 64 << 10
READ_S = 5.0
Act = Callable[[Notice], Awaitable[tuple[bool, bool]]]
"""Takes a notice; returns whether a replacement was started, and whether the instance is drained.
"""


class NoticePort:
    """`POST /notice[?instance=ID]` with a JSON body and `authorization: Bearer SECRET`.

    Owner: whoever started it must `stop` it.
    """

    def __init__(self, listen: str, act: Act, secret: str, clock: Clock) -> None:
        self._act, self._secret, self._clock = act, secret, clock
        self._server: asyncio.Server | None = None
        self.address = listen

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            CannotStart: the address cannot be bound.
        """
        host, _, port = self.address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host or "127.0.0.1", int(port), limit=MOST_BYTES
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
            async with asyncio.timeout(READ_S):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = [line.partition(":") for line in head.split("\r\n")[1:]]
                headers = {name.strip().lower(): value.strip() for name, _, value in lines}
                length = headers.get("content-length", "")
                known = length.isdigit() and int(length) <= MOST_BYTES
                body = await reader.readexactly(int(length)) if known else b""
            writer.write(await self._answer(head.partition("\r\n")[0], headers, body))
            await writer.drain()
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
        ):
            pass
        finally:
            writer.close()

    async def _answer(self, first: str, headers: dict[str, str], body: bytes) -> bytes:
        method, _, rest = first.partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        if (method, path) != ("POST", "/notice"):
            return _page("404 Not Found", {"error": "notices go to POST /notice"})
        expected = f"Bearer {self._secret}"
        if not self._secret or not hmac.compare_digest(
            headers.get("authorization", "").encode(), expected.encode()
        ):
            return _page("401 Unauthorized", {"error": "needs authorization: Bearer SECRET"})
        instance = urllib.parse.parse_qs(query).get("instance", [""])[0]
        try:
            notices = parse(json.loads(body), instance, self._clock.time())
        except (ValueError, RecursionError, BadNotice) as error:
            said = str(error) if isinstance(error, BadNotice) else "the body is not JSON"
            return _page("400 Bad Request", {"error": said})
        done = [await self._act(notice) for notice in notices]
        replaced, draining = sum(one[0] for one in done), sum(one[1] for one in done)
        return _page(
            "200 OK", {"notices": len(notices), "replaced": replaced, "draining": draining}
        )


def _page(status: str, answer: dict[str, object]) -> bytes:
    body = json.dumps(answer).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: "
        f"{len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
