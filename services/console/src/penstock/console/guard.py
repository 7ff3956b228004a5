"""Who may see the page: with a token its holders, without one anybody on loopback.

It also adds the headers that keep the page to its own origin.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
COOKIE = "penstock-console"
CONTENT_SECURITY_POLICY = (
    b"default-src 'self'; "
    b"script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; "
    b"font-src 'self' data:; "
    b"frame-ancestors 'none'; "
    b"form-action 'self'; "
    b"base-uri 'self'"
)
"""No other origin: everything the page needs comes from the installed packages."""

HEADERS = {
    b"content-security-policy": CONTENT_SECURITY_POLICY,
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
UNAUTHORIZED = b"open this page with ?token=..., the console's token\n"


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
    """An ASGI application around another that answers 401 to whoever may not see the page.

    Without a token, the name that the browser asked for must be a loopback name: a foreign page
    whose name resolves to this machine cannot get in.

    Args:
        app: the application.
        token: empty: none is needed.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        from_query = _query_token(scope)
        if not self._is_allowed(scope, from_query or _cookie_token(scope)):
            await _refuse(scope, send)
            return
        cookie_token = from_query if self._token else ""
        await self._app(scope, receive, _with_headers(send, cookie_token))

    def _is_allowed(self, scope: Scope, token: str) -> bool:
        if self._token:
            return hmac.compare_digest(token.encode(), self._token.encode())
        host = _header(scope, b"host")
        if not host.endswith("]"):  # an IPv6 address without port
            host = host.rpartition(":")[0] or host
        return is_loopback(host)


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
    await send({"type": "http.response.body", "body": UNAUTHORIZED})


def _with_headers(send: Send, cookie_token: str) -> Send:
    """A `send` that adds HEADERS, and a cookie with the token unless it is empty."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            if cookie_token:
                cookie = f"{COOKIE}={cookie_token}; HttpOnly; SameSite=Strict; Path=/"
                message["headers"].append((b"set-cookie", cookie.encode("latin-1")))
        await send(message)

    return send_with_headers
