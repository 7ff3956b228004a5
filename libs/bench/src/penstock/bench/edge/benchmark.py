"""The HTTP edge beside LiteLLM's proxy: the same provider, which answers at once, the same client.

Penstock is the stack of `make up` in the production profile with a cell for each core, a key, a
rate, a budget, the cache and sampled traces;
LiteLLM's proxy has a worker for each core, a key and its cache in Redis, without the database that
its budgets need. Both run on the same cores as the client and the provider, and take turns in
rounds; a figure is the median over the rounds. What the edge adds is measured at 100 calls a second
that do not wait for each other, against the provider asked directly, and divided by the p50 of a
bare gRPC echo under the same load. `sse_cpu_vs_json` is the CPU time of all of Penstock's processes
for a call that is answered by a stream, divided by the number of its chunks and by the time to
parse a chunk's JSON: it holds all that the call costs besides. `sse_chunk_cpu_vs_json` is what the
stream's chunks add to the same call answered whole, divided alike.

`conformance_run` and `conformance_failed` sum the last run of each suite of `make conformance`,
which runs unmodified clients and appends to `docs/benchmarks/conformance.jsonl`: cases that need no
checkout, and failures of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from penstock.bench.conformance.log import LOG, SuiteRun, campaign_figures, latest
from penstock.bench.edge import litellm, rounds
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.penstock_side import PenstockSide, penstock
from penstock.bench.edge.provider import CHAT, CHUNKS, SLOW, Provider, provider_process
from penstock.bench.edge.rounds import Opened, Side, StreamCpu
from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.intervals import Interval, bootstrap, medians
from penstock.bench.harness.load import quantile
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Result, Table
from penstock.service.program import loop_factory

ROUNDS, QUICK_ROUNDS = 9, 1
ROUND_S, QUICK_ROUND_S = 4.0, 0.5
BOUNDS = {
    "conformance_run": Bound(">=", 100),
    "conformance_failed": Bound("<=", 0),
    "vs_litellm_rps_cached": Bound(">=", 10),
    "vs_litellm_rps_uncached": Bound(">=", 6),
    "p50_vs_litellm": Bound("<=", 0.2),
    "added_p50_vs_echo": Bound("<=", 4),
    "added_p99_vs_echo": Bound("<=", 12),
    "sse_cpu_vs_json": Bound("<=", 15),
    "disconnect_cancels_ms": Bound("<=", 50),
    "bytes_differing": Bound("<=", 0),
}
EXACT = frozenset(
    {
        "conformance_run",
        "conformance_checkouts_run",
        "conformance_left_out",
        "conformance_failed",
        "bytes_differing",
    }
)
Figures = dict[str, float]
Sides = Sequence[Mapping[str, Side]]


class Measured(NamedTuple):
    """What was measured, by rounds that are independent of each other."""

    sides: Sides
    added: Sequence[Opened]
    streams: Sequence[StreamCpu]
    disconnects_ms: Sequence[float]
    bytes_differing: int


def run(options: Options) -> Result:
    """Measure."""
    clients = latest(LOG)
    with (
        echo_process() as echo,
        provider_process() as provider,
        tempfile.TemporaryDirectory(prefix="penstock-edge-") as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        measured = runner.run(_measure(Path(folder), provider, echo.bare, options.quick))
    figures: dict[str, float | int] = {**campaign_figures(clients), **figures_of(measured)}
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    sides = measured.sides
    context = {"callers": rounds.CALLERS, "rounds": len(sides), "data": "short chats"}
    notes = () if litellm.program() else ("LiteLLM's proxy is not installed: `make peers`.",)
    tables = (_table(sides), *([_conformance_table(clients)] if clients else []))
    intervals = intervals_of(measured)
    return Result(figures, bounds, context, tables, notes=notes, intervals=intervals, exact=EXACT)


def figures_of(measured: Measured) -> dict[str, float | int]:
    """The figures: medians of the rounds, and the slowest disconnect."""
    figures: dict[str, float | int] = {}
    for rows in _rows(measured):
        figures |= medians(rows)
    return {
        **figures,
        **_slowest(measured.disconnects_ms),
        "bytes_differing": measured.bytes_differing,
    }


def intervals_of(measured: Measured) -> dict[str, Interval]:
    """The intervals of all figures but the exact ones; none where there are too few rounds."""
    intervals = bootstrap(measured.disconnects_ms, _slowest, "disconnects")
    for rows in _rows(measured):
        intervals |= bootstrap(rows, medians, "rounds")
    return intervals


def _rows(measured: Measured) -> Sequence[Sequence[Figures]]:
    """The figures of each round, by what was measured in it."""
    return (
        [_load_figures(each) for each in measured.sides],
        [_added_figures(each) for each in measured.added],
        [_stream_figures(each) for each in measured.streams],
    )


async def _measure(folder: Path, provider: Provider, echo_address: str, quick: bool) -> Measured:
    count, seconds = (QUICK_ROUNDS, QUICK_ROUND_S) if quick else (ROUNDS, ROUND_S)
    async with contextlib.AsyncExitStack() as running:
        say("edge: starting the gateways")
        side = await running.enter_async_context(penstock(folder, provider))
        clients = {"Penstock": side.client}
        if litellm.program():
            served = litellm.Served(provider.base_url, (CHAT, SLOW))
            peer = await running.enter_async_context(litellm.litellm_proxy(folder, served))
            clients["LiteLLM"] = HttpClient(peer.address, peer.headers)
            running.callback(clients["LiteLLM"].close)
        direct = HttpClient(provider.address)
        for client in clients.values():
            await rounds.load(client, seconds / 2)
        return Measured(
            await _in_turns(clients, count, seconds),
            await _added(side.client, direct, echo_address, count, seconds),
            await _streams(side, count, seconds / 2),
            await _disconnects(side.client, provider, quick=quick),
            await _bytes_differing(side.client, direct, quick=quick),
        )


async def _in_turns(clients: dict[str, HttpClient], count: int, seconds: float) -> Sides:
    sides: list[Mapping[str, Side]] = []
    for number in range(count):
        say(f"edge: round {number + 1} of {count}")
        names = list(clients) if number % 2 else list(reversed(clients))
        sides.append({name: await rounds.load(clients[name], seconds) for name in names})
    return sides


async def _added(
    edge: HttpClient, direct: HttpClient, echo_address: str, count: int, seconds: float
) -> list[Opened]:
    say("edge: what it adds at 100 calls a second")
    return [await rounds.opened(edge, direct, echo_address, seconds) for _ in range(count)]


async def _streams(side: PenstockSide, count: int, seconds: float) -> list[StreamCpu]:
    say("edge: streams")
    await rounds.stream_cpu(side, seconds / 2)
    return [await rounds.stream_cpu(side, seconds) for _ in range(count)]


async def _disconnects(edge: HttpClient, provider: Provider, *, quick: bool) -> list[float]:
    say("edge: disconnects")
    count = rounds.QUICK_DISCONNECTS if quick else rounds.DISCONNECTS
    return await rounds.disconnects_ms(edge, provider, count)


async def _bytes_differing(edge: HttpClient, direct: HttpClient, *, quick: bool) -> int:
    say("edge: bytes")
    bodies = rounds.QUICK_ODD_BODIES if quick else rounds.ODD_BODIES
    return await rounds.bytes_differing(edge, direct, bodies)


def _load_figures(sides: Mapping[str, Side]) -> Figures:
    own, peer = sides["Penstock"], sides.get("LiteLLM")
    figures = {
        "cached_rps": own.cached.rps,
        "uncached_rps": own.uncached.rps,
        "uncached_p50_ms": own.uncached.p50_ms(),
    }
    if peer is None:
        return figures
    return figures | {
        "vs_litellm_rps_cached": own.cached.rps / peer.cached.rps,
        "vs_litellm_rps_uncached": own.uncached.rps / peer.uncached.rps,
        "p50_vs_litellm": own.uncached.p50_ms() / peer.uncached.p50_ms(),
    }


def _added_figures(added: Opened) -> Figures:
    return {
        "added_p50_vs_echo": added.added_p50 / added.echo_p50,
        "added_p99_vs_echo": added.added_p99 / added.echo_p50,
        "added_p50_ms": added.added_p50,
        "added_p99_ms": added.added_p99,
        "echo_p50_ms": added.echo_p50,
    }


def _stream_figures(cpu_us: StreamCpu) -> Figures:
    in_all = cpu_us.streamed_call / CHUNKS
    beyond = (cpu_us.streamed_call - cpu_us.whole_call) / CHUNKS
    return {
        "sse_cpu_us_per_chunk": in_all,
        "sse_cpu_vs_json": in_all / cpu_us.json,
        "sse_chunk_cpu_vs_json": beyond / cpu_us.json,
    }


def _slowest(took_ms: Sequence[float]) -> Figures:
    return {"disconnect_cancels_ms": max(took_ms)}


def _conformance_table(runs: Sequence[SuiteRun]) -> Table:
    columns = ("suite", "run", "failed", "left out with a reason", "commit")
    rows = tuple(
        (run.suite, run.run, run.failed, sum(run.left_out.values()), run.commit) for run in runs
    )
    return Table("Unmodified clients", columns, rows)


def _table(sides: Sides) -> Table:
    rows: list[tuple[str | float, ...]] = []
    for name in sides[0]:
        for load in ("uncached", "cached"):
            loads = [getattr(round_[name], load) for round_ in sides]
            p99 = statistics.median(
                quantile(list(each.latencies_ms.values()), 0.99) for each in loads
            )
            rows.append(
                (
                    name,
                    load,
                    statistics.median(each.rps for each in loads),
                    statistics.median(each.p50_ms() for each in loads),
                    p99,
                )
            )
    columns = ("gateway", "answers", "a second", "p50 ms", "p99 ms")
    return Table("16 callers, medians of the rounds", columns, tuple(rows))
