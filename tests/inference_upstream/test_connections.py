"""Connections over time, over TLS and over HTTP/2: idle ones are closed though nobody calls, new
ones resume what the server knows of earlier ones, and one carries many calls.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import httpcore
import pytest
import trustme
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.inference_upstream.transport.pool import Pool
from penstock.inference_upstream.transport.tls_sessions import FULL_AGAIN_S, KEPT
from penstock.otel.telemetry import Telemetry
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock
from penstock.testkit.http2 import Http2Upstream
from penstock.testkit.upstream import ScriptedUpstream

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
TIMEOUTS = {"connect": 5.0, "read": 20.0, "write": 5.0, "pool": 20.0}


def pool_of(url: str, **knobs: object) -> Pool:
    return Pool(
        Upstream.model_validate(
            {"name": "up", "base_url": url, "models": (UpstreamModel(name="m"),), **knobs}
        )
    )


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
            while pool.open or upstream.open_connections:
                await asyncio.sleep(0.01)
        keeper.cancel()
        await call(pool, upstream.url)
        assert (pool.opened, upstream.connections) == (2, 2)
        await pool.close()


async def test_the_pool_grows_to_the_calls_at_once_and_shrinks_to_what_is_left_of_them() -> None:
    async with ScriptedUpstream(first_token_s=0.01) as upstream:
        pool = pool_of(upstream.url)

        async def caller() -> None:
            for _ in range(4):
                await call(pool, upstream.url)

        await asyncio.gather(*(caller() for _ in range(40)))
        assert pool.opened == pool.open == upstream.connections == 40
        await pool.close()
        pool = pool_of(upstream.url, keepalive_s=0.3)
        keeper = asyncio.create_task(pool.keep(SystemClock()))
        await asyncio.gather(*(caller() for _ in range(8)))
        async with asyncio.timeout(20):
            while pool.open != 1:
                await call(pool, upstream.url)
        keeper.cancel()
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
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, tmp_path / "ca.pem"


async def test_one_http2_connection_carries_many_calls_at_once(
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    async with Http2Upstream(trust[0]) as upstream:
        pool = pool_of(upstream.url, http2=True, ca_file=trust[1])
        assert b"over two" in await call(pool, upstream.url)
        upstream.min_concurrent = 8
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
        upstream.min_concurrent = 2
        leaving = asyncio.create_task(call(pool, upstream.url))
        async with asyncio.timeout(20):
            while len(upstream.requests) < 2:
                await asyncio.sleep(0)
            leaving.cancel()
            assert await upstream.resets.get() == 3
        upstream.min_concurrent = 1
        assert b"over two" in await call(pool, upstream.url)
        assert upstream.connections == 1
        await pool.close()


def resumptions(server_side: ssl.SSLContext) -> int:
    """What the server itself counts."""
    return server_side.session_stats()["hits"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server", [ScriptedUpstream, Http2Upstream])
async def test_a_new_connection_resumes_the_tls_session_of_an_earlier_one(
    server: type[ScriptedUpstream | Http2Upstream],
    version: ssl.TLSVersion,
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    trust[0].maximum_version = version
    async with server(tls=trust[0]) as upstream:
        http2 = server is Http2Upstream
        pool = pool_of(
            upstream.url, ca_file=trust[1], refresh_s=0, http2=http2
        )  # no connection is used twice
        for _ in range(4):
            await call(pool, upstream.url)
        assert (pool.opened, pool.sessions.resumed, resumptions(trust[0])) == (4, 3, 3)
        await pool.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_gives_no_tickets_is_served_in_full(
    version: ssl.TLSVersion, trust: tuple[ssl.SSLContext, Path]
) -> None:
    trust[0].maximum_version = version
    trust[0].num_tickets = 0
    trust[0].options |= ssl.OP_NO_TICKET
    async with ScriptedUpstream(tls=trust[0]) as upstream:
        pool = pool_of(upstream.url, ca_file=trust[1], refresh_s=0)
        for _ in range(3):
            assert b"hello" in await call(pool, upstream.url)
        assert (pool.opened, pool.sessions.resumed, resumptions(trust[0])) == (3, 0, 0)
        await pool.close()


async def test_resumptions_are_told(trust: tuple[ssl.SSLContext, Path]) -> None:
    told: dict[str, Callable[[], float]] = {}

    class Gauges(Telemetry):
        def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
            told[name] = read

    async with ScriptedUpstream(tls=trust[0]) as upstream:
        knobs = {
            "name": "up",
            "base_url": upstream.url,
            "models": [{"name": "m"}],
            "ca_file": trust[1],
            "refresh_s": 0,
        }
        client = Client(Upstream.model_validate(knobs), Gauges("test"))
        for _ in range(3):
            await client.post("/embeddings", {"model": "m", "input": ["a"]})
        assert told["penstock.upstream.tls_resumed"]() == 2
        await client.close()


async def test_a_session_stays_with_its_upstream_and_its_host_name(
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    async with ScriptedUpstream(tls=trust[0]) as upstream:
        one, other = (pool_of(upstream.url, ca_file=trust[1], refresh_s=0) for _ in range(2))
        await call(one, upstream.url)
        await call(other, upstream.url)
        await call(one, upstream.url.replace("127.0.0.1", "localhost"))
        assert resumptions(trust[0]) == 0
        await call(one, upstream.url)
        assert (one.sessions.resumed, other.sessions.resumed, resumptions(trust[0])) == (1, 0, 1)
        await one.close()
        await other.close()


async def test_a_session_whose_handshake_fails_is_not_tried_again(
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    async with ScriptedUpstream(tls=trust[0]) as upstream:
        pool = pool_of(upstream.url, ca_file=trust[1], refresh_s=0)
        await call(pool, upstream.url)
        assert len(pool.sessions) == 1
        async with await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0
        ) as broken:
            with pytest.raises(httpcore.NetworkError):
                await call(pool, f"https://127.0.0.1:{broken.sockets[0].getsockname()[1]}/v1")
        assert len(pool.sessions) == 0
        assert b"hello" in await call(pool, upstream.url)
        assert (pool.sessions.resumed, resumptions(trust[0])) == (0, 0)
        await pool.close()


async def test_sessions_are_bounded_in_number_and_age_and_used_once(
    trust: tuple[ssl.SSLContext, Path],
) -> None:
    clock = FakeClock(1.0)
    async with ScriptedUpstream(tls=trust[0]) as upstream:
        pool = pool_of(upstream.url, ca_file=trust[1], refresh_s=0)
        pool.sessions.now = clock.monotonic
        await call(pool, upstream.url)
        await clock.advance(FULL_AGAIN_S / 2)
        await call(pool, upstream.url)
        assert (len(pool.sessions), pool.sessions.resumed) == (1, 1)
        # A resumed connection does not make its server's proof any younger.
        await clock.advance(FULL_AGAIN_S / 2)
        await call(pool, upstream.url)
        assert pool.sessions.resumed == 1
        await call(pool, upstream.url)
        assert pool.sessions.resumed == 2
        left = pool.sessions.take("127.0.0.1")
        assert left is not None
        for _ in range(KEPT + 2):
            pool.sessions.leave(left)
        assert len(pool.sessions) == KEPT
        await pool.close()
