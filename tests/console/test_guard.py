"""Who may see the page, and which headers keep it to its own origin."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.console.guard import Guard, is_loopback


async def respond(token: str, host: str, query: str = "", cookie: str = "") -> list[dict[str, Any]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"seen"})

    async def receive() -> dict[str, Any]:
        return {}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    headers = [(b"host", host.encode()), (b"cookie", cookie.encode())]
    await Guard(app, token)(
        {"type": "http", "headers": headers, "query_string": query.encode()}, receive, send
    )
    return sent


@pytest.mark.parametrize("host", ["127.0.0.1:7080", "localhost:7080", "[::1]:7080", "localhost"])
async def test_loopback_names_are_let_in_without_a_token(host: str) -> None:
    assert (await respond("", host))[0]["status"] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7080", "127.0.0.1.evil.example", ""]
)
async def test_a_foreign_name_that_resolves_to_loopback_is_refused(host: str) -> None:
    assert (await respond("", host))[0]["status"] == 401


async def test_a_token_in_the_address_opens_once_and_its_cookie_from_then_on() -> None:
    assert (await respond("t0k", "console.example"))[0]["status"] == 401
    assert (await respond("t0k", "console.example", "token=wrong"))[0]["status"] == 401
    first = (await respond("t0k", "console.example", "token=t0k"))[0]
    cookie = dict(first["headers"])[b"set-cookie"].decode()
    assert first["status"] == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert (await respond("t0k", "console.example", cookie=cookie.partition(";")[0]))[0][
        "status"
    ] == 200


async def test_every_response_keeps_the_page_to_its_own_origin() -> None:
    headers = dict((await respond("", "localhost"))[0]["headers"])
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_loopback_names_and_addresses_are_recognised() -> None:
    assert is_loopback("127.8.9.1") and is_loopback("[::1]") and is_loopback("LOCALHOST")
    assert not is_loopback("10.0.0.1") and not is_loopback("localhost.example")
