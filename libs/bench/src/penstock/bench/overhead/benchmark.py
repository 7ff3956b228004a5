"""The overhead of the path: a bare grpc.aio echo against answers through all deciding services.

Router, cache, limiter, batcher and an instant model are processes. Sides take turns in rounds on
the same cores; a figure is the median over the rounds of the ratio within one round. A hit is an
exact one of which the router has a copy; a miss has a new text each time, so that cache, limiter,
batcher and model are all called; `bypass` leaves the cache out. Tracing is measured between two
such stacks, one without telemetry and one with the shipped sampler (production) and the telemetry
service.

`cell_` and `sep_` are such stacks without telemetry, with the deciding services in one process and
in separate ones; `_cpu_vs_echo` is the CPU time of all processes of the stack for an answer at 16
callers, divided by that of the bare echo's server. `idle_cpu_share` is what a whole `make up` takes
of one core while nobody calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import urllib.request
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2_grpc
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.echo import EchoAddresses, echo_process
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import resident_mb
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.hop.benchmark import REQUEST, TEXT
from penstock.bench.overhead.cells import CELL_BOUNDS, cells_against_processes
from penstock.bench.overhead.idle import IDLE_BOUNDS, idle_figures
from penstock.bench.overhead.stacks import KEY, MODEL, TENANT, instant_stack, miss_of, processes_in
from penstock.bench.overhead.workers import WORKERS_BOUNDS, workers_against_one
from penstock.client import Penstock
from penstock.rpc.peers.stream import open_channel
from penstock.service.program import loop_factory
from penstock.stack.stack import Stack

CALLERS = 64
WARM_UP_S = 0.5
DROPPED_SPANS_METRIC, CALLS_METRIC = "penstock_telemetry_dropped_spans", "penstock_calls"
METRICS_WAIT_S = 6.0
"""Services export their metrics every few seconds."""
TRACING_TURNS = 2
"""Times that tracing is measured in each round: the two ways differ by a few per cent, less than a
round varies on a busy machine.
"""
SIDES = ("bare", "bypass", "miss", "hit", "hit by the client")
NEEDS_MODELS = True
BOUNDS = {
    "hit_separate_p50_ratio": Bound("<=", 2.5),
    "hit_separate_rps_ratio": Bound(">=", 0.5),
    "hit_coalesced_rps_ratio": Bound(">=", 2),
    "miss_separate_p50_ratio": Bound("<=", 4.5),
    "tracing_throughput_ratio": Bound(">=", 0.95),
    "sampled_spans_lost": Bound("<=", 0.001),
}


class Round(NamedTuple):
    """One round, a value for each of SIDES: p50 of one caller, and answers a second of 64."""

    p50_ms: tuple[float, ...]
    rps: tuple[float, ...]


class TracingTurn(NamedTuple):
    """Hits a second without and with tracing."""

    plain_rps: float
    traced_rps: float


class Measured(NamedTuple):
    """Everything that was measured; `of_traced_stack` are figures."""

    rounds: list[Round]
    tracing: list[TracingTurn]
    of_traced_stack: dict[str, float]


def run(options: Options) -> Result:
    """Measure."""
    rounds, seconds = (2, 0.5) if options.quick else (5, 2.0)
    with echo_process() as echo, asyncio.Runner(loop_factory=loop_factory()) as runner:
        measured = runner.run(_measure(echo, rounds, seconds))
        cells = runner.run(cells_against_processes(echo, quick=options.quick))
        idle = runner.run(idle_figures(quick=options.quick))
        workers = runner.run(workers_against_one(echo, quick=options.quick))
    rows = measured.rounds

    def p50_ratio(side: str) -> float:
        at = SIDES.index(side)
        return statistics.median(row.p50_ms[at] / row.p50_ms[0] for row in rows)

    def rps_ratio(side: str) -> float:
        at = SIDES.index(side)
        return statistics.median(row.rps[at] / row.rps[0] for row in rows)

    figures = {
        "bare_rps": statistics.median(row.rps[0] for row in rows),
        "bare_p50_ms": statistics.median(row.p50_ms[0] for row in rows),
        "hit_separate_p50_ratio": p50_ratio("hit"),
        "hit_separate_rps_ratio": rps_ratio("hit"),
        "hit_coalesced_rps_ratio": rps_ratio("hit by the client"),
        "miss_separate_p50_ratio": p50_ratio("miss"),
        "miss_separate_rps_ratio": rps_ratio("miss"),
        "bypass_p50_ratio": p50_ratio("bypass"),
        "bypass_rps_ratio": rps_ratio("bypass"),
        "tracing_throughput_ratio": statistics.median(
            turn.traced_rps / turn.plain_rps for turn in measured.tracing
        ),
        **measured.of_traced_stack,
        **cells.figures(),
        **idle,
        **workers.figures(),
    }
    context = {
        "rounds": rounds,
        "data": "one fixed text of 63 bytes; a number after it for misses",
        "clients": "plain stubs",
    }
    bounds = BOUNDS | CELL_BOUNDS | IDLE_BOUNDS | WORKERS_BOUNDS
    tables = (*_tables(measured), cells.table(), workers.table())
    return Result(figures, bounds, context, tables)


def _tables(measured: Measured) -> tuple[Table, ...]:
    rows = measured.rounds
    return (
        Table("p50 of one caller, ms", SIDES, tuple(row.p50_ms for row in rows)),
        Table("answers a second, 64 callers", SIDES, tuple(row.rps for row in rows)),
        Table(
            "hits a second, 64 callers",
            ("without tracing", "with tracing"),
            tuple(measured.tracing),
        ),
    )


async def _measure(echo: EchoAddresses, rounds: int, seconds: float) -> Measured:
    async with contextlib.AsyncExitStack() as owned:
        plain = await owned.enter_async_context(instant_stack(echo, traced=False))
        traced = await owned.enter_async_context(instant_stack(echo, traced=True))
        channel = await owned.enter_async_context(open_channel(echo.bare))
        client = await owned.enter_async_context(Penstock(plain.addresses["router"], KEY))
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        hit = _hit(plain)
        traced_hit = _hit(traced)

        async def bare(_: int) -> object:
            return await stub.Compute(REQUEST)

        async def hit_by_client(_: int) -> object:
            return await client.embed([TEXT], model=MODEL)

        sides: list[Send] = [bare, _bypass(plain), miss_of(plain), hit, hit_by_client]
        for side in (*sides, traced_hit):
            await closed_loop(side, CALLERS, WARM_UP_S)
        rows: list[Round] = []
        tracing: list[TracingTurn] = []
        for _ in range(rounds):
            p50_ms = [(await closed_loop(side, 1, seconds)).p50_ms() for side in sides]
            rps = [(await closed_loop(side, CALLERS, seconds)).rps for side in sides]
            rows.append(Round(tuple(p50_ms), tuple(rps)))
            tracing += [await _tracing_turn(hit, traced_hit, seconds) for _ in range(TRACING_TURNS)]
        of_traced_stack = {
            "sampled_spans_lost": await _lost_share(traced),
            "rss_mb_total": sum(map(resident_mb, processes_in(traced.plan.home))),
        }
    return Measured(rows, tracing, of_traced_stack)


async def _tracing_turn(plain: Send, traced: Send, seconds: float) -> TracingTurn:
    """Measure plain, traced, traced, plain: what drifts in that time affects both alike."""
    order = (plain, traced, traced, plain)
    rates = [(await closed_loop(side, CALLERS, seconds)).rps for side in order]
    return TracingTurn((rates[0] + rates[3]) / 2, (rates[1] + rates[2]) / 2)


def _hit(stack: Stack) -> Send:
    options = router_pb2.CallOptions(model=MODEL)
    return _embed_fixed(stack, router_pb2.EmbedRequest(options=options, texts=[TEXT]))


def _bypass(stack: Stack) -> Send:
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    return _embed_fixed(stack, router_pb2.EmbedRequest(options=options, texts=[TEXT]))


def _embed_fixed(stack: Stack, request: router_pb2.EmbedRequest) -> Send:
    metadata = stack.metadata(TENANT)

    async def send(_: int) -> object:
        return await stack.router.Embed(request, metadata=metadata)

    return send


async def _lost_share(stack: Stack) -> float:
    """Recorded spans that were lost anywhere over counted calls, by the exported metrics."""
    await asyncio.sleep(METRICS_WAIT_S)
    text = await asyncio.to_thread(_metrics, f"http://{stack.addresses['metrics']}/metrics")
    return _sum(text, DROPPED_SPANS_METRIC) / max(1.0, _sum(text, CALLS_METRIC))


def _metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read()).decode()


def _sum(text: str, name: str) -> float:
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))
