"""Who may see the page: anybody on loopback, else who holds the token.

Also the headers that keep the page to itself.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
COOKIE = "penstock-console"
HEADERS = {
    b"content-security-policy": (
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src "
        b"'self' 'unsafe-inline';"
        b" img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; "
        b"form-action 'self'; base-uri 'self'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
"""No origin but our own: what the page needs comes out of its own wheel."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    bare = host.strip("[]").lower()
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets in callers on loopback who ask for a loopback name (so that no foreign page can reach
    in), or holders of the token.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = self._given(scope)
        if not self._may(scope, given):
            await _refuse(scope, send)
            return
        setting = given if self._token and given == _query_token(scope) else ""
        await self._app(scope, receive, _with_headers(send, setting))

    def _given(self, scope: Scope) -> str:
        return _query_token(scope) or _cookie_token(scope)

    def _may(self, scope: Scope, given: str) -> bool:
        if self._token:
            return hmac.compare_digest(given.encode(), self._token.encode())
        host = _header(scope, b"host")
        return is_loopback(host if host.endswith("]") else host.rpartition(":")[0] or host)


def _header(scope: Scope, name: bytes) -> str:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _query_token(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _cookie_token(scope: Scope) -> str:
    try:
        morsel = SimpleCookie(_header(scope, b"cookie")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send(
        {
            "type": "http.response.body",
            "body": b"open this page with ?token=..., the console's token\n",
        }
    )


def _with_headers(send: Send, token: str) -> Send:
    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            if token:
                cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/".encode("latin-1")
                message["headers"].append((b"set-cookie", cookie))
        await send(message)

    return answer
