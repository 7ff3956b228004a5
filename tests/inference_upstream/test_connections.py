"""The connections to an upstream: idle ones are closed, new ones resume TLS sessions, and over
HTTP/2 one carries many calls.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpcore
import pytest
import trustme
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.inference_upstream.transport.pool import ConnectionPool
from penstock.inference_upstream.transport.tls_sessions import MAX_RESUMPTION_AGE_S, MAX_SESSIONS
from penstock.otel.telemetry import Telemetry
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually
from penstock.testkit.http2 import Http2Upstream
from penstock.testkit.upstream import ScriptedUpstream

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
TIMEOUTS = {"connect": 5.0, "read": 20.0, "write": 5.0, "pool": 20.0}


HEADERS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]


def pool_of(
    url: str, now: Callable[[], float] = time.monotonic, **settings: object
) -> ConnectionPool:
    section = {"name": "up", "base_url": url, "models": (UpstreamModel(name="m"),), **settings}
    return ConnectionPool(Upstream.model_validate(section), now)


async def call(pool: ConnectionPool, url: str) -> bytes:
    """The body of one answer."""
    async with pool.post(f"{url}/chat/completions", HEADERS, BODY, TIMEOUTS) as response:
        assert response.status == 200
        return b"".join([piece async for piece in response.aiter_stream()])


async def test_an_idle_connection_is_closed_although_no_call_comes() -> None:
    async with ScriptedUpstream() as upstream:
        pool = pool_of(upstream.url, keepalive_s=0.05)
        await call(pool, upstream.url)
        assert pool.open == 1
        sweeper = asyncio.create_task(pool.sweep_forever(SystemClock()))
        await eventually(lambda: not pool.open and not upstream.open_connections)
        sweeper.cancel()
        await call(pool, upstream.url)
        assert (pool.opened, upstream.connections) == (2, 2)
        await pool.close()


async def four_calls(pool: ConnectionPool, url: str) -> None:
    for _ in range(4):
        await call(pool, url)


async def test_the_pool_grows_to_the_calls_at_once() -> None:
    async with ScriptedUpstream(first_token_s=0.01) as upstream:
        pool = pool_of(upstream.url)
        await asyncio.gather(*(four_calls(pool, upstream.url) for _ in range(40)))
        assert pool.opened == pool.open == upstream.connections == 40
        await pool.close()


async def test_the_pool_shrinks_to_the_connections_in_use() -> None:
    async with ScriptedUpstream(first_token_s=0.01) as upstream:
        pool = pool_of(upstream.url, keepalive_s=0.3)
        sweeper = asyncio.create_task(pool.sweep_forever(SystemClock()))
        await asyncio.gather(*(four_calls(pool, upstream.url) for _ in range(8)))

        async def one_is_left() -> bool:
            await call(pool, upstream.url)
            return pool.open == 1

        await eventually(one_is_left, timeout_s=20)
        sweeper.cancel()
        await pool.close()


async def test_a_sweep_leaves_connections_whose_time_has_not_come() -> None:
    async with ScriptedUpstream() as upstream:
        pool = pool_of(upstream.url)
        await call(pool, upstream.url)
        await pool.sweep()
        assert pool.open == 1
        await pool.close()


async def test_a_sweep_leaves_busy_connections() -> None:
    async with ScriptedUpstream() as upstream:
        pool = pool_of(upstream.url, keepalive_s=0.0)
        url = f"{upstream.url}/chat/completions"
        async with pool.post(url, HEADERS, BODY, TIMEOUTS) as response:
            await pool.sweep()
            assert (pool.open, pool.busy) == (1, 1)
            assert b"hello" in b"".join([piece async for piece in response.aiter_stream()])
        await pool.close()


@dataclass(frozen=True)
class Tls:
    """A server's TLS context, and the file of the authority that vouches for it."""

    context: ssl.SSLContext
    ca_file: Path

    @property
    def resumptions(self) -> int:
        """Sessions that the server itself counts as resumed."""
        return self.context.session_stats()["hits"]


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return Tls(context, tmp_path / "ca.pem")


async def test_one_http2_connection_carries_many_calls_at_once(
    tls: Tls,
) -> None:
    async with Http2Upstream(tls.context) as upstream:
        pool = pool_of(upstream.url, http2=True, ca_file=tls.ca_file)
        assert b"over two" in await call(pool, upstream.url)
        upstream.min_concurrent = 8
        answers = await asyncio.gather(*(call(pool, upstream.url) for _ in range(8)))
        assert all(b"over two" in answer for answer in answers)
        assert (pool.opened, upstream.connections, upstream.protocols) == (1, 1, ["h2"])
        assert len(upstream.requests) == 9
        await pool.close()


async def test_a_caller_that_leaves_ends_its_own_http2_stream_and_no_other(
    tls: Tls,
) -> None:
    async with Http2Upstream(tls.context) as upstream:
        pool = pool_of(upstream.url, http2=True, ca_file=tls.ca_file)
        await call(pool, upstream.url)
        upstream.min_concurrent = 2
        leaving = asyncio.create_task(call(pool, upstream.url))
        await eventually(lambda: len(upstream.requests) == 2)
        leaving.cancel()
        second_stream = 3
        assert await upstream.resets.get() == second_stream
        upstream.min_concurrent = 1
        assert b"over two" in await call(pool, upstream.url)
        assert upstream.connections == 1
        await pool.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server", [ScriptedUpstream, Http2Upstream])
async def test_a_new_connection_resumes_the_tls_session_of_an_earlier_one(
    server: type[ScriptedUpstream | Http2Upstream],
    version: ssl.TLSVersion,
    tls: Tls,
) -> None:
    tls.context.maximum_version = version
    async with server(tls=tls.context) as upstream:
        # With refresh_s=0 no connection is used twice.
        http2 = server is Http2Upstream
        pool = pool_of(upstream.url, ca_file=tls.ca_file, refresh_s=0, http2=http2)
        for _ in range(4):
            await call(pool, upstream.url)
        assert (pool.opened, pool.sessions.resumed, tls.resumptions) == (4, 3, 3)
        await pool.close()


@pytest.mark.parametrize(
    ("version", "resumed"), [(ssl.TLSVersion.TLSv1_2, 2), (ssl.TLSVersion.TLSv1_3, 0)]
)
async def test_without_tickets_tls_1_2_resumes_what_the_server_keeps_and_tls_1_3_nothing(
    version: ssl.TLSVersion, resumed: int, tls: Tls
) -> None:
    tls.context.maximum_version = version
    tls.context.num_tickets = 0
    tls.context.options |= ssl.OP_NO_TICKET
    async with ScriptedUpstream(tls=tls.context) as upstream:
        pool = pool_of(upstream.url, ca_file=tls.ca_file, refresh_s=0)
        for _ in range(3):
            assert b"hello" in await call(pool, upstream.url)
        assert (pool.opened, pool.sessions.resumed, tls.resumptions) == (3, resumed, resumed)
        await pool.close()


class Gauges(Telemetry):
    """Telemetry whose gauges can be read."""

    def __init__(self) -> None:
        super().__init__("test")
        self.read: dict[str, Callable[[], float]] = {}

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        self.read[name] = read


async def test_resumptions_are_measured(tls: Tls) -> None:
    gauges = Gauges()
    async with ScriptedUpstream(tls=tls.context) as upstream:
        section = {
            "name": "up",
            "base_url": upstream.url,
            "models": [{"name": "m"}],
            "ca_file": tls.ca_file,
            "refresh_s": 0,
        }
        upstream_section = Upstream.model_validate(section)
        client = Client(upstream_section, gauges)
        for _ in range(3):
            body = {"model": "m", "input": ["a"]}
            await client.post("/embeddings", body, upstream_section.models[0])
        assert gauges.read["penstock.upstream.tls_resumed"]() == 2
        await client.close()


async def test_a_session_stays_with_its_upstream_and_its_host_name(
    tls: Tls,
) -> None:
    async with ScriptedUpstream(tls=tls.context) as upstream:
        one, other = (pool_of(upstream.url, ca_file=tls.ca_file, refresh_s=0) for _ in range(2))
        await call(one, upstream.url)
        await call(other, upstream.url)
        await call(one, upstream.url.replace("127.0.0.1", "localhost"))
        assert tls.resumptions == 0
        await call(one, upstream.url)
        assert (one.sessions.resumed, other.sessions.resumed, tls.resumptions) == (1, 0, 1)
        await one.close()
        await other.close()


async def test_a_session_whose_handshake_fails_is_not_tried_again(
    tls: Tls,
) -> None:
    async with ScriptedUpstream(tls=tls.context) as upstream:
        pool = pool_of(upstream.url, ca_file=tls.ca_file, refresh_s=0)
        await call(pool, upstream.url)
        assert len(pool.sessions) == 1
        async with await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0
        ) as broken:
            with pytest.raises(httpcore.NetworkError):
                await call(pool, f"https://127.0.0.1:{broken.sockets[0].getsockname()[1]}/v1")
        assert len(pool.sessions) == 0
        assert b"hello" in await call(pool, upstream.url)
        assert (pool.sessions.resumed, tls.resumptions) == (0, 0)
        await pool.close()


async def test_after_an_hour_a_server_must_show_its_certificate_again(tls: Tls) -> None:
    clock = FakeClock(1.0)
    async with ScriptedUpstream(tls=tls.context) as upstream:
        pool = pool_of(upstream.url, clock.monotonic, ca_file=tls.ca_file, refresh_s=0)
        await call(pool, upstream.url)
        await clock.advance(MAX_RESUMPTION_AGE_S / 2)
        await call(pool, upstream.url)
        assert pool.sessions.resumed == 1
        # A resumed connection does not renew the proof that its session rests on.
        await clock.advance(MAX_RESUMPTION_AGE_S / 2)
        await call(pool, upstream.url)
        assert pool.sessions.resumed == 1
        await call(pool, upstream.url)
        assert pool.sessions.resumed == 2
        await pool.close()


async def test_a_session_is_used_once_and_the_number_of_sessions_is_bounded(tls: Tls) -> None:
    async with ScriptedUpstream(tls=tls.context) as upstream:
        pool = pool_of(upstream.url, ca_file=tls.ca_file, refresh_s=0)
        for _ in range(2):
            await call(pool, upstream.url)
            assert len(pool.sessions) == 1
        session = pool.sessions.take("127.0.0.1")
        assert session is not None
        for _ in range(MAX_SESSIONS + 2):
            pool.sessions.save(session)
        assert len(pool.sessions) == MAX_SESSIONS
        await pool.close()
