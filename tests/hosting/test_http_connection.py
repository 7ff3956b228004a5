"""HTTP connections of clients that send or read too slowly, or too much: they are cut, and others
are served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from penstock.hosting.http_connection import ConnectionLimits
from penstock.hosting.http_port import HttpPort
from penstock.testkit.eventually import eventually

LIMITS = ConnectionLimits(connections=20, idle_s=0.5, head_s=0.5, head_bytes=8_192, unread_s=0.5)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n"
CLOSED = (httpx.TransportError,)
LARGE = b"x" * 20_000_000


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers without reading the body; `/large` has 20 MB, `/pieces` as much in many pieces,
    `/given-up` never ends.
    """
    if scope["type"] != "http":
        return
    body = b"ok" if scope["path"] in ("/", "/given-up") else LARGE
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if scope["path"] == "/given-up":
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        return
    if scope["path"] == "/pieces":
        for start in range(0, len(body), 100_000):
            piece = body[start : start + 100_000]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits = LIMITS) -> AsyncIterator[str]:
    port = HttpPort("127.0.0.1:0", app, limits=limits)
    await port.start()
    try:
        yield port.address
    finally:
        await port.stop()


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[Pair]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_served(address: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"http://{address}/")).status_code == 200


async def trickled(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a few bytes again and again, until the connection is cut."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.02)


async def read_to_its_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"", b"G"),
        (b"", b"\r\n"),
        (GET + b"x: ", b"y"),
        (GET + b"\r\n", b"\r\n"),
        (GET + b"content-length: 99999\r\n\r\n", b"x"),
        (GET + b"\r\n", b""),
    ],
    ids=["nothing", "bytes", "lines", "header", "lines after", "rest of a body", "idle"],
)
async def test_a_connection_without_a_whole_request_is_cut(first: bytes, then: bytes) -> None:
    async with serving() as address, opened(address) as (reader, writer):
        writer.write(first)
        trickling = asyncio.create_task(trickled(writer, then)) if then else None
        reading = asyncio.create_task(read_to_its_end(reader))
        assert await is_served(address)
        came = await reading
        assert came.startswith(b"HTTP/1.1 200") is (b"\r\n\r\n" in first)
        if trickling is not None:
            trickling.cancel()


async def test_a_head_without_end_is_refused_before_it_is_kept() -> None:
    async with serving() as address, opened(address) as (reader, writer):
        writer.write(GET + b"x: " + b"y" * 100_000)
        assert b" 431 " in await reader.readline()
        assert await is_served(address)


async def test_so_many_connections_are_held_and_no_more() -> None:
    limits = ConnectionLimits(connections=20, idle_s=60)
    async with serving(limits) as address, contextlib.AsyncExitStack() as holding:
        held = [await holding.enter_async_context(opened(address)) for _ in range(20)]
        async with opened(address) as (reader, _):
            assert await read_to_its_end(reader) == b""
        held[0][1].close()
        await eventually(lambda: is_served(address), not_yet=CLOSED)
        for reader, writer in held[1:]:
            writer.write(GET + b"\r\n")
            assert b" 200 " in await reader.readline()


@pytest.mark.parametrize("path", [b"/large", b"/pieces", b"/given-up"])
@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
async def test_a_client_that_reads_nothing_is_cut(path: bytes, connection: bytes) -> None:
    limits = ConnectionLimits(connections=1, idle_s=0.5, unread_s=0.5)
    async with serving(limits) as address, opened(address) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's own protocol
        writer.write(GET.replace(b"/ ", path + b" ", 1) + b"connection: " + connection)
        writer.write(b"\r\n\r\n")
        # The port holds one connection, so another is served only when this one has gone.
        await eventually(lambda: is_served(address), timeout_s=60, not_yet=CLOSED)


@pytest.mark.parametrize("path", [b"/large", b"/pieces"])
async def test_a_client_that_reads_slowly_is_not_cut(path: bytes) -> None:
    limits = ConnectionLimits(unread_s=0.5, idle_s=0.5)
    async with serving(limits) as address, opened(address) as (reader, writer):
        writer.write(GET.replace(b"/ ", path + b" ", 1) + b"connection: close\r\n\r\n")
        came = 0
        while part := await reader.read(65_536):
            came += len(part)
            await asyncio.sleep(0.005)
        assert came > len(LARGE)
