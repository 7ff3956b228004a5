"""The price of the path: a bare grpc.aio echo against answers through router, cache, limiter,
batcher and an instant model, all processes.

Sides take turns in rounds on the same cores; each figure is the median over the rounds of the ratio
inside one round. A hit is an exact one that the router holds a copy of; a miss has a new text each
time, so that cache, limiter, batcher and model are all asked; `bypass` leaves the cache out.
Tracing is measured between two such stacks, one without telemetry and one with the shipped sampler
(production) and the telemetry service.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import statistics
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import yaml
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.harness.echo import TOKEN, EchoAddresses, echo_process
from penstock.bench.harness.load import Ask, closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.hop.benchmark import REQUEST, TEXT
from penstock.client import Penstock
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.registration import Registrar
from penstock.service.program import loop_factory
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import StackPlan
from penstock.stack.readiness import is_ready
from penstock.stack.stack import Stack
from penstock.stack.supervisor import Supervisor
from rich.console import Console

KEY = "psk-overhead"
MODEL = "instant"
CALLERS = 64
DROPPED, CALLS = "penstock_telemetry_dropped_spans", "penstock_calls"
IDLE_S = 10.0
TRACING_TURNS = 2
"""Times a round that both ways are measured: they are within a few percent, less than a round of a
busy machine moves.
"""
SIDES = ("bare", "bypass", "miss", "hit", "hit by the client")
BOUNDS = {
    "hit_separate_p50_ratio": Bound("<=", 2.5),
    "hit_separate_rps_ratio": Bound(">=", 0.5),
    "hit_coalesced_rps_ratio": Bound(">=", 2),
    "miss_separate_p50_ratio": Bound("<=", 4.5),
    "tracing_throughput_ratio": Bound(">=", 0.95),
    "sampled_spans_lost": Bound("<=", 0.001),
    "idle_cpu_share": Bound("<=", 0.05),
}


def run(options: Options) -> Result:
    rounds, seconds = (2, 0.5) if options.quick else (5, 2.0)
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        rows, tracing, extra = runner.run(
            _measure(echo, rounds, seconds, 1.0 if options.quick else IDLE_S)
        )

    def ratio(kind: int, side: str) -> float:
        at = SIDES.index(side)
        return statistics.median(row[kind][at] / row[kind][0] for row in rows)

    figures = {
        "bare_rps": statistics.median(row[1][0] for row in rows),
        "bare_p50_ms": statistics.median(row[0][0] for row in rows),
        "hit_separate_p50_ratio": ratio(0, "hit"),
        "hit_separate_rps_ratio": ratio(1, "hit"),
        "hit_coalesced_rps_ratio": ratio(1, "hit by the client"),
        "miss_separate_p50_ratio": ratio(0, "miss"),
        "miss_separate_rps_ratio": ratio(1, "miss"),
        "bypass_p50_ratio": ratio(0, "bypass"),
        "bypass_rps_ratio": ratio(1, "bypass"),
        "tracing_throughput_ratio": statistics.median(traced / plain for plain, traced in tracing),
        **extra,
    }
    tables = (
        Table("p50 of one caller, ms", SIDES, tuple(row[0] for row in rows)),
        Table("answers a second, 64 callers", SIDES, tuple(row[1] for row in rows)),
        Table("hits a second, 64 callers", ("without tracing", "with tracing"), tuple(tracing)),
    )
    context = {
        "rounds": rounds,
        "data": "one fixed text of 63 bytes; a number after it for misses",
        "clients": "plain stubs",
    }
    return Result(figures, BOUNDS, context, tables)


Row = tuple[tuple[float, ...], tuple[float, ...]]


async def _measure(
    echo: EchoAddresses, rounds: int, seconds: float, idle_s: float
) -> tuple[list[Row], list[tuple[float, float]], dict[str, float]]:
    async with contextlib.AsyncExitStack() as owned:
        plain = await owned.enter_async_context(_path(echo, traced=False))
        traced = await owned.enter_async_context(_path(echo, traced=True))
        channel = await owned.enter_async_context(open_channel(echo.bare))
        client = Penstock(plain.addresses["router"], KEY)
        owned.push_async_callback(client.close)
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        hits = [_hit(stack) for stack in (plain, traced)]

        async def bare(_: int) -> object:
            return await stub.Compute(REQUEST)

        async def by_client(_: int) -> object:
            return await client.embed([TEXT], model=MODEL)

        sides: list[Ask] = [bare, _bypass(plain), _miss(plain), hits[0], by_client]
        for side in (*sides, hits[1]):
            await closed_loop(side, CALLERS, 0.5)
        rows, tracing = [], []
        for _ in range(rounds):
            ones = [(await closed_loop(side, 1, seconds)).p50_ms() for side in sides]
            many = [(await closed_loop(side, CALLERS, seconds)).rps for side in sides]
            rows.append((tuple(ones), tuple(many)))
            tracing.extend([await _both_ways(hits, seconds) for _ in range(TRACING_TURNS)])
        extra = {"sampled_spans_lost": await _lost(traced), **await _resting(traced, idle_s)}
    return rows, tracing, extra


async def _both_ways(sides: Sequence[Ask], seconds: float) -> tuple[float, float]:
    """Answers a second of two sides, one, other, other, one: what drifts over that time weighs on
    both alike.
    """
    first, second = sides
    rates = [
        (await closed_loop(side, CALLERS, seconds)).rps for side in (first, second, second, first)
    ]
    return (rates[0] + rates[3]) / 2, (rates[1] + rates[2]) / 2


def _hit(stack: Stack) -> Ask:
    request = router_pb2.EmbedRequest(options=router_pb2.CallOptions(model=MODEL), texts=[TEXT])
    metadata = stack.metadata("bench")

    async def hit(_: int) -> object:
        return await stack.router.Embed(request, metadata=metadata)

    return hit


def _miss(stack: Stack) -> Ask:
    options, metadata, numbers = (
        router_pb2.CallOptions(model=MODEL),
        stack.metadata("bench"),
        itertools.count(),
    )

    async def miss(_: int) -> object:
        request = router_pb2.EmbedRequest(options=options, texts=[f"{TEXT} {next(numbers)}"])
        return await stack.router.Embed(request, metadata=metadata)

    return miss


def _bypass(stack: Stack) -> Ask:
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    request, metadata = (
        router_pb2.EmbedRequest(options=options, texts=[TEXT]),
        stack.metadata("bench"),
    )

    async def bypass(_: int) -> object:
        return await stack.router.Embed(request, metadata=metadata)

    return bypass


@contextlib.asynccontextmanager
async def _path(echo: EchoAddresses, *, traced: bool) -> AsyncIterator[Stack]:
    """All that decides as processes, with the instant model registered."""
    with tempfile.TemporaryDirectory(prefix="penstock-overhead-") as folder:
        config = Path(folder) / "penstock.yaml"
        key = {
            "id": "bench",
            "organisation": "bench",
            "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
        }
        rate = {
            "name": "wide",
            "kind": "rate",
            "counts": "requests",
            "limit": 10**9,
            "window": "minute",
        }
        config.write_text(yaml.safe_dump({"keys": {"api": [key]}, "limits": {"rules": [rate]}}))
        plan = StackPlan(
            ports.free(), Path(folder), Path(folder), config, TOKEN, profile="production"
        )
        supervisor = Supervisor(LogStream(Console(quiet=True)), is_ready)
        registrar = _registrar(plan, echo)
        try:
            for stage in plan.request_path(traced=traced):
                await supervisor.start(stage)
            async with open_channel(plan.addresses["router"]) as channel:
                stack = Stack(
                    plan, supervisor, router_pb2_grpc.RouterServiceStub(channel), {"bench": KEY}
                )
                registrar.start()
                await stack.wait_for_instances(MODEL, 1, "bench")
                yield stack
                await registrar.leave()
        finally:
            await supervisor.stop()


async def _lost(stack: Stack) -> float:
    """Spans that were recorded and lost anywhere, as a share of the calls that were counted: both
    told by the exported metrics.
    """
    await asyncio.sleep(6.0)  # metrics go out every few seconds
    text = await asyncio.to_thread(_metrics, f"http://{stack.addresses['metrics']}/metrics")
    lost = _sum(text, DROPPED)
    return lost / max(1.0, _sum(text, CALLS))


def _metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read()).decode()


def _sum(text: str, name: str) -> float:
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


async def _resting(stack: Stack, seconds: float) -> dict[str, float]:
    """CPU of all processes while nothing is asked, as a share of one core; and their memory."""
    pids = [*_children(stack)]
    before = sum(_cpu_s(pid) for pid in pids)
    await asyncio.sleep(seconds)
    used = sum(_cpu_s(pid) for pid in pids) - before
    return {"idle_cpu_share": used / seconds, "rss_mb_total": sum(_rss_mb(pid) for pid in pids)}


def _children(stack: Stack) -> Iterator[int]:
    """Processes of one stack, by the folder that each has in its environment."""
    mark = f"PENSTOCK_HOME={stack.plan.home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _registrar(plan: StackPlan, echo: EchoAddresses) -> Registrar:
    model = inference_pb2.Model(name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["embed"])
    instance = router_pb2.Instance(
        id="instant", address=echo.door, models=[model], concurrency=CALLERS
    )
    return Registrar(plan.addresses["router"], instance, TOKEN, common_pb2.LoadReport)
