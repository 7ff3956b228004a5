"""Connections over time and over HTTP/2: idle ones are closed though nobody calls, and one TLS connection carries many calls."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from penstock.core.clock import SystemClock
from penstock.inference_upstream.config import Upstream, UpstreamModel
from penstock.inference_upstream.pool import Pool
from penstock.testkit.http2 import Http2Upstream
from penstock.testkit.upstream import ScriptedUpstream

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
TIMEOUTS = {"connect": 5.0, "read": 20.0, "write": 5.0, "pool": 20.0}


def pool_of(url: str, **knobs: object) -> Pool:
    return Pool(Upstream.model_validate({"name": "up", "base_url": url, "models": (UpstreamModel(name="m"),), **knobs}))


async def call(pool: Pool, url: str) -> bytes:
    head = [("content-type", "application/json"), ("content-length", str(len(BODY)))]
    async with pool.post(f"{url}/chat/completions", head, BODY, TIMEOUTS) as response:
        assert response.status == 200
        return b"".join([piece async for piece in response.aiter_stream()])


async def test_an_idle_connection_is_closed_though_no_call_comes() -> None:
    async with ScriptedUpstream() as upstream:
        pool = pool_of(upstream.url, keepalive_s=0.05)
        await call(pool, upstream.url)
        assert pool.open == 1
        keeper = asyncio.create_task(pool.keep(SystemClock()))
        async with asyncio.timeout(20):
            while pool.open or upstream.open:
                await asyncio.sleep(0.01)
        keeper.cancel()
        await call(pool, upstream.url)
        assert (pool.opened, upstream.connections) == (2, 2)
        await pool.close()


async def test_a_sweep_leaves_busy_connections_and_those_whose_time_has_not_come() -> None:
    async with ScriptedUpstream() as upstream:
        lasting = pool_of(upstream.url)
        await call(lasting, upstream.url)
        await lasting.sweep()
        assert lasting.open == 1
        brief = pool_of(upstream.url, keepalive_s=0.0)
        head = [("content-length", str(len(BODY)))]
        async with brief.post(f"{upstream.url}/chat/completions", head, BODY, TIMEOUTS) as response:
            await brief.sweep()
            assert (brief.open, brief.busy) == (1, 1)
            assert b"hello" in b"".join([piece async for piece in response.aiter_stream()])
        await lasting.close()
        await brief.close()


@pytest.fixture
def trust(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context and the file of the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, tmp_path / "ca.pem"


async def test_one_http2_connection_carries_many_calls_at_once(trust: tuple[ssl.SSLContext, Path]) -> None:
    async with Http2Upstream(trust[0]) as upstream:
        pool = pool_of(upstream.url, http2=True, ca_file=trust[1])
        assert b"over two" in await call(pool, upstream.url)
        upstream.wait_for = 8
        answers = await asyncio.gather(*(call(pool, upstream.url) for _ in range(8)))
        assert all(b"over two" in answer for answer in answers)
        assert (pool.opened, upstream.connections, upstream.protocols) == (1, 1, ["h2"])
        assert len(upstream.requests) == 9
        await pool.close()


async def test_a_caller_that_leaves_ends_its_own_http2_stream_and_no_other(
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    async with Http2Upstream(trust[0]) as upstream:
        pool = pool_of(upstream.url, http2=True, ca_file=trust[1])
        await call(pool, upstream.url)
        upstream.wait_for = 2
        leaving = asyncio.create_task(call(pool, upstream.url))
        async with asyncio.timeout(20):
            while len(upstream.requests) < 2:
                await asyncio.sleep(0)
            leaving.cancel()
            assert await upstream.resets.get() == 3
        upstream.wait_for = 1
        assert b"over two" in await call(pool, upstream.url)
        assert upstream.connections == 1
        await pool.close()
