"""The probe of containers: what it asks, and what it makes of the answer."""

from __future__ import annotations

import asyncio

import pytest
from penstock.hosting.probe import reachable_by, serves
from penstock.testkit.server import serving


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("0.0.0.0:7070", "127.0.0.1:7070"),
        ("[::]:7070", "127.0.0.1:7070"),
        ("10.0.0.5:7070", "10.0.0.5:7070"),
        ("unix:/run/p.sock", "unix:/run/p.sock"),
    ],
)
def test_a_wildcard_is_asked_on_loopback(listen: str, address: str) -> None:
    assert reachable_by(listen) == address


async def test_it_serves_until_it_says_otherwise_or_is_gone() -> None:
    async with serving([], "0.0.0.0:0") as server:
        listen = f"0.0.0.0:{server.port}"
        assert await asyncio.to_thread(serves, listen)
        await server.set_serving(False)
        assert not await asyncio.to_thread(serves, listen)
    assert not await asyncio.to_thread(serves, listen)
