"""Calls over a pool of connections, and over a new connection each, to a delayed upstream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trustme
from penstock.api.inference.v1 import inference_pb2
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.service.clock import SystemClock
from penstock.testkit.upstream import ScriptedUpstream

UPSTREAM_S = 0.020
ROUND_TRIP_S = 0.010
MODEL = "chat"
POOL_SIZE = 20


def chat_task() -> inference_pb2.Task:
    """A short conversation."""
    task = inference_pb2.Task()
    task.generate.messages.add(role=inference_pb2.ROLE_USER, content="say something short")
    return task


@dataclass
class Connecting:
    """One way of connecting, and what its calls took."""

    client: Client
    took_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0

    @property
    def opened(self) -> int:
        """Connections that were set up."""
        return self.client.opened

    @property
    def resumed(self) -> int:
        """Connections that resumed a TLS session."""
        return self.client.resumed

    @property
    def mean_ms(self) -> float:
        """Mean milliseconds of a call."""
        return statistics.mean(self.took_ms)

    async def call(self) -> None:
        """Make one call."""
        service = UpstreamServicer(self.client, SystemClock(), NO_TELEMETRY)
        request = inference_pb2.ComputeRequest(model=MODEL, task=chat_task())
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        await service.Compute(request, Call())
        self.took_ms.append((time.perf_counter() - began_s) * 1e3)
        self.cpu_ms += (time.process_time() - cpu_began_s) * 1e3


class Sides(NamedTuple):
    """With a pool; with a new connection a call; and the same without session tickets."""

    pooled: Connecting
    fresh: Connecting
    full_handshake: Connecting


async def compare(folder: Path, calls: int, round_trip_s: float = ROUND_TRIP_S) -> Sides:
    """Make so many calls on each side, in turns, to an upstream at this distance."""
    authority = trustme.CA()
    certificate = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    async with (
        _delayed_upstream(authority, 2, round_trip_s) as url,
        _delayed_upstream(authority, 0, round_trip_s) as url_without_tickets,
    ):
        sides = Sides(
            _connecting(url, certificate, POOL_SIZE),
            _connecting(url, certificate, 0),
            _connecting(url_without_tickets, certificate, 0),
        )
        for _ in range(calls):
            for side in sides:
                await side.call()
        for side in sides:
            await side.client.close()
    return sides


def _connecting(url: str, certificate: Path, kept_connections: int) -> Connecting:
    settings = Upstream.model_validate(
        {
            "name": "up",
            "models": [{"name": MODEL}],
            "base_url": url,
            "ca_file": certificate,
            "kept_connections": kept_connections,
        }
    )
    return Connecting(Client(settings, NO_TELEMETRY))


@contextlib.asynccontextmanager
async def _delayed_upstream(
    authority: trustme.CA, tickets: int, round_trip_s: float
) -> AsyncIterator[str]:
    """The address of a scripted upstream behind the proxy.

    It gives so many session tickets to a new connection.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.num_tickets = tickets
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with (
        ScriptedUpstream(first_token_s=UPSTREAM_S, tls=tls) as upstream,
        _delaying_proxy(upstream.url, round_trip_s) as url,
    ):
        yield url


@contextlib.asynccontextmanager
async def _delaying_proxy(url: str, round_trip_s: float) -> AsyncIterator[str]:
    """A proxy that delays data by half a round trip, and a new connection by a whole one."""
    port = int(url.rpartition(":")[2].partition("/")[0])

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await reader.read(1 << 16):
            loop.call_later(round_trip_s / 2, writer.write, chunk)
        loop.call_later(round_trip_s / 2, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip_s)
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(forward(reader, target_writer), forward(target_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
