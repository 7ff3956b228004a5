"""The HTTP edge beside LiteLLM's proxy: the same provider, which answers at once, the same client.

Penstock is the stack as `make up` starts it, with a key, a rate, a budget, the cache and traces on;
LiteLLM's proxy has a worker for each core, a key and its cache in Redis, without the database that
its budgets need. Both run on the same cores as the client and the provider, and take turns in
rounds; a figure is the median over the rounds. What the edge adds is measured at 100 calls a second
that do not wait for each other, against the provider asked directly, and divided by the p50 of a
bare gRPC echo under the same load. `sse_cpu_vs_json` is the CPU time of all of Penstock's processes
for one chunk of a stream, divided by the time to parse that chunk's JSON.

`conformance_run` and `conformance_failed` sum the last run of each suite of `make conformance`,
which runs unmodified clients and appends to `docs/benchmarks/conformance.jsonl`: cases that need no
checkout, and failures of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from penstock.bench.conformance.log import LOG, SuiteRun, campaign_figures, latest
from penstock.bench.edge import litellm, rounds
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.penstock_side import PenstockSide, penstock
from penstock.bench.edge.provider import CHAT, SLOW, Provider, provider_process
from penstock.bench.edge.rounds import Opened, Side
from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.load import quantile
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Result, Table
from penstock.service.program import loop_factory

ROUNDS, QUICK_ROUNDS = 7, 1
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
T = TypeVar("T")
Figures = dict[str, float | int]
Sides = list[dict[str, Side]]


def run(options: Options) -> Result:
    """Measure."""
    clients = latest(LOG)
    with (
        echo_process() as echo,
        provider_process() as provider,
        tempfile.TemporaryDirectory(prefix="penstock-edge-") as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        measured, sides = runner.run(_measure(Path(folder), provider, echo.bare, options.quick))
    measured = {**campaign_figures(clients), **measured}
    bounds = {name: bound for name, bound in BOUNDS.items() if name in measured}
    context = {"callers": rounds.CALLERS, "rounds": len(sides), "data": "short chats"}
    notes = () if litellm.program() else ("LiteLLM's proxy is not installed: `make peers`.",)
    tables = (_table(sides), *([_conformance_table(clients)] if clients else []))
    return Result(measured, bounds, context, tables, (), notes)


async def _measure(
    folder: Path, provider: Provider, echo_address: str, quick: bool
) -> tuple[Figures, Sides]:
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
        sides = await _in_turns(clients, count, seconds)
        added = await _added(side.client, direct, echo_address, count, seconds)
        return (
            {
                **_against_litellm(sides),
                **_added_figures(added),
                **await _rest(side, direct, provider, seconds, quick=quick),
            },
            sides,
        )


async def _in_turns(clients: dict[str, HttpClient], count: int, seconds: float) -> Sides:
    sides: Sides = []
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


async def _rest(
    side: PenstockSide, direct: HttpClient, provider: Provider, seconds: float, *, quick: bool
) -> Figures:
    say("edge: streams, disconnects, bytes")
    cpu_us = await rounds.stream_cpu_us(side, seconds)
    disconnects = rounds.QUICK_DISCONNECTS if quick else rounds.DISCONNECTS
    bodies = rounds.QUICK_ODD_BODIES if quick else rounds.ODD_BODIES
    return {
        "sse_cpu_us_per_chunk": cpu_us,
        "sse_cpu_vs_json": cpu_us / rounds.json_cpu_us(),
        "disconnect_cancels_ms": await rounds.slowest_disconnect_ms(
            side.client, provider, disconnects
        ),
        "bytes_differing": await rounds.bytes_differing(side.client, direct, bodies),
    }


def _against_litellm(sides: Sides) -> Figures:
    own = [round_["Penstock"] for round_ in sides]
    figures: Figures = {
        "cached_rps": _median(own, lambda side: side.cached.rps),
        "uncached_rps": _median(own, lambda side: side.uncached.rps),
        "uncached_p50_ms": _median(own, lambda side: side.uncached.p50_ms()),
    }
    if "LiteLLM" not in sides[0]:
        return figures
    pairs = [(round_["Penstock"], round_["LiteLLM"]) for round_ in sides]
    return figures | {
        "vs_litellm_rps_cached": _median(pairs, lambda of: of[0].cached.rps / of[1].cached.rps),
        "vs_litellm_rps_uncached": _median(
            pairs, lambda of: of[0].uncached.rps / of[1].uncached.rps
        ),
        "p50_vs_litellm": _median(
            pairs, lambda of: of[0].uncached.p50_ms() / of[1].uncached.p50_ms()
        ),
    }


def _added_figures(added: Sequence[Opened]) -> Figures:
    return {
        "added_p50_vs_echo": _median(added, lambda each: each.added_p50 / each.echo_p50),
        "added_p99_vs_echo": _median(added, lambda each: each.added_p99 / each.echo_p50),
        "added_p50_ms": _median(added, lambda each: each.added_p50),
        "added_p99_ms": _median(added, lambda each: each.added_p99),
        "echo_p50_ms": _median(added, lambda each: each.echo_p50),
    }


def _median(values: Sequence[T], of: Callable[[T], float]) -> float:
    return statistics.median(of(value) for value in values)


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
