"""Pooled connections to an upstream against a new one a call, over TLS: set-ups and latency; and
what the path adds to a first token.

The upstream is the scripted one with 20 ms to its answer, behind a proxy that adds 10 ms of round
trip; a new connection costs one round trip more, as TCP's handshake does. All sides are the serving
client with one TLS context each; those that do not pool keep no connection, and one of these calls
a server that gives no session tickets, so that every handshake is a full one. `latency_cut` and
`connect_overhead_cut` are against the one that resumes. Calls take turns, in the first tokens too:
a bare hop, the upstream directly, the whole path, each after the same rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import yaml
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.harness.echo import TOKEN, echo_process
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.hop.benchmark import REQUEST
from penstock.inference_upstream.api.inference_service import UpstreamServicer
from penstock.inference_upstream.settings import Upstream
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.service.clock import SystemClock
from penstock.service.program import loop_factory
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.stack import Stack
from penstock.stack.supervisor import Supervisor
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream
from rich.console import Console

UPSTREAM_S = 0.020
ROUND_TRIP_S = 0.010
REST_S = 0.002
WARM_CALLS = 10
CANCELS = 20
KEY = "psk-pooling"
BOUNDS = {
    "connect_overhead_cut": Bound(">=", 0.9),
    "latency_cut": Bound(">=", 0.3),
    "first_token_added_hops": Bound("<=", 4.5),
    "cancel_closes_ms": Bound("<=", 50),
}


def run(options: Options) -> Result:
    calls = 10 if options.quick else 150
    with (
        echo_process() as echo,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        pooled, fresh, full = runner.run(_pooled(Path(folder), calls))
        first, hop, direct, path, cancel = runner.run(_first_tokens(Path(folder), echo.bare, calls))
    figures = {
        "connect_overhead_cut": 1 - pooled.setups / fresh.setups,
        "latency_cut": 1 - statistics.mean(pooled.ms) / statistics.mean(fresh.ms),
        "reuse_share": 1 - pooled.setups / calls,
        "tls_resumed_share": fresh.resumed / (fresh.setups - 1),
        "pooled_ms": statistics.mean(pooled.ms),
        "fresh_ms": statistics.mean(fresh.ms),
        "fresh_full_handshake_ms": statistics.mean(full.ms),
        "first_token_added_hops": first,
        "bare_hop_p50_ms": hop,
        "first_token_direct_p50_ms": direct,
        "first_token_path_p50_ms": path,
        "cancel_closes_ms": cancel,
    }
    context = {
        "calls": calls,
        "data": "one short conversation",
        "upstream_ms": UPSTREAM_S * 1e3,
        "round_trip_ms": ROUND_TRIP_S * 1e3,
    }
    rows = (("pooled", pooled), ("a new one a call", fresh), ("a new one a call, no tickets", full))
    table = Table(
        "TLS connections",
        ("", "set up", "by a resumed session", "mean ms a call", "CPU ms a call, both ends"),
        tuple(
            (what, side.setups, side.resumed, statistics.mean(side.ms), side.cpu_ms / calls)
            for what, side in rows
        ),
    )
    return Result(figures, BOUNDS, context, (table,))


def _task() -> inference_pb2.Task:
    task = inference_pb2.Task()
    task.generate.messages.add(role="user", content="say something short")
    return task


@dataclass
class _Side:
    """One way of connecting: what its calls took, and the connections that were set up for them."""

    client: Client
    ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0

    @property
    def setups(self) -> int:
        return self.client.opened

    @property
    def resumed(self) -> int:
        return self.client.resumed

    async def call(self) -> None:
        service = UpstreamServicer(self.client, SystemClock(), NO_TELEMETRY)
        began, cpu_s = time.perf_counter(), time.process_time()
        await service.Compute(inference_pb2.ComputeRequest(model="chat", task=_task()), Call())
        self.ms.append((time.perf_counter() - began) * 1e3)
        self.cpu_ms += (time.process_time() - cpu_s) * 1e3


async def _pooled(folder: Path, calls: int) -> tuple[_Side, _Side, _Side]:
    """Behind the proxy: with the pool, with a new connection a call, and with one whose server
    gives no tickets.
    """
    authority = trustme.CA()
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    async with _upstream(authority, tickets=2) as url, _upstream(authority, tickets=0) as plain_url:
        knobs = {"name": "up", "models": [{"name": "chat"}], "ca_file": trusted}
        pooled, fresh, full = (
            _Side(
                Client(
                    Upstream.model_validate({**knobs, "base_url": to, "kept_connections": kept}),
                    NO_TELEMETRY,
                )
            )
            for to, kept in ((url, 20), (url, 0), (plain_url, 0))
        )
        for _ in range(calls):
            for side in (pooled, fresh, full):
                await side.call()
        for side in (pooled, fresh, full):
            await side.client.close()
    return pooled, fresh, full


@contextlib.asynccontextmanager
async def _upstream(authority: trustme.CA, tickets: int) -> AsyncIterator[str]:
    """A scripted upstream behind the proxy that gives so many session tickets to a new connection;
    its address.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.num_tickets = tickets
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    async with (
        ScriptedUpstream(first_token_s=UPSTREAM_S, tls=server_side) as upstream,
        _delayed(upstream.url) as url,
    ):
        yield url


@contextlib.asynccontextmanager
async def _delayed(url: str) -> AsyncIterator[str]:
    """A proxy that delays both ways by half a round trip, and a new connection by a whole one."""
    port = int(url.rpartition(":")[2].partition("/")[0])

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(1 << 16):
            loop.call_later(ROUND_TRIP_S / 2, writer.write, piece)
        loop.call_later(ROUND_TRIP_S / 2, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ROUND_TRIP_S)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(forward(reader, back), forward(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def _first_tokens(
    folder: Path, bare: str, calls: int
) -> tuple[float, float, float, float, float]:
    """Added hops of the path's first token and the medians that it is made of; the slowest of the
    cancels; in milliseconds.
    """
    async with (
        ScriptedUpstream(lambda _: ScriptedAnswer("one two three four")) as upstream,
        _path(folder, upstream.url) as stack,
    ):
        section = Upstream.model_validate(
            {"name": "up", "base_url": upstream.url, "models": [{"name": "chat"}]}
        )
        client = Client(section, NO_TELEMETRY)
        service = UpstreamServicer(client, SystemClock(), NO_TELEMETRY)
        request = inference_pb2.ComputeStreamRequest(model="chat", task=_task())
        public = router_pb2.GenerateStreamRequest(task=_task().generate)
        public.options.model, public.options.cache.bypass = "chat", True
        metadata = stack.metadata("bench")

        async with open_channel(bare) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            sides = (
                lambda: stub.Compute(REQUEST),
                lambda: _first(service.ComputeStream(request, Call())),
                lambda: _first(stack.router.GenerateStream(public, metadata=metadata)),
            )
            taken = await _in_turn(sides, calls)
        upstream.per_word_s = 5.0
        cancels = [
            await _cancelled(stack.router.GenerateStream(public, metadata=metadata), upstream)
            for _ in range(CANCELS)
        ]
        await client.close()
    hop, direct, path = (statistics.median(times) for times in taken)
    return (path - direct) / hop, hop, direct, path, max(cancels)


async def _in_turn(
    sides: Sequence[Callable[[], Awaitable[float | object]]], calls: int
) -> list[list[float]]:
    """Milliseconds of each side's calls: until the moment that it gives, or until its end.

    All sides have the same rest before them: what follows an answer needs it, and a core that has
    slept wakes later, so a hop without a rest would be another hop than those of the path.
    """
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(calls + WARM_CALLS):
        for side, times in zip(sides, taken, strict=True):
            await asyncio.sleep(REST_S)
            began = time.perf_counter()
            moment = await side()
            ended = moment if isinstance(moment, float) else time.perf_counter()
            if number >= WARM_CALLS:
                times.append((ended - began) * 1e3)
    return taken


async def _cancelled(stream: Any, upstream: ScriptedUpstream) -> float:
    """Milliseconds from a caller's cancel, after the first piece, until the upstream sees its
    connection closed.
    """
    upstream.caller_left.clear()
    await anext(aiter(stream))
    began = time.perf_counter()
    stream.cancel()
    await upstream.caller_left.wait()
    return (time.perf_counter() - began) * 1e3


async def _first(stream: AsyncIterator[object]) -> float:
    """The moment of a stream's first piece; the rest is read too, as a caller would."""
    moment = 0.0
    async for _ in stream:
        moment = moment or time.perf_counter()
    return moment


@contextlib.asynccontextmanager
async def _path(folder: Path, url: str) -> AsyncIterator[Stack]:
    """Router, batcher and the upstream service as processes."""
    config = folder / "penstock.yaml"
    key = {
        "id": "bench",
        "organisation": "bench",
        "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
    }
    server = {"name": "up", "base_url": url, "models": [{"name": "chat"}]}
    config.write_text(yaml.safe_dump({"keys": {"api": [key]}, "upstreams": {"servers": [server]}}))
    plan = StackPlan(ports.free(), folder, folder, config, TOKEN, profile="production")
    supervisor = Supervisor(LogStream(Console(quiet=True)), is_ready)
    try:
        await supervisor.start(plan.router_and_batcher())
        await supervisor.start((plan.upstream("up", redis_url="", otlp_endpoint=""),))
        async with open_channel(plan.addresses["router"]) as channel:
            stack = Stack(
                plan, supervisor, router_pb2_grpc.RouterServiceStub(channel), {"bench": KEY}
            )
            await stack.wait_for_instances("chat", 1, "bench")
            yield stack
    finally:
        await supervisor.stop()
