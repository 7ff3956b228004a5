"""Calls through a cell and through separate processes beside a bare grpc.aio echo.

The sides take turns in rounds, in an order that changes with each. CPU is that of all processes of
a stack, stores included, over all answers; the echo's is that of its server.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from penstock.bench.edge.provider import provider_process
from penstock.bench.harness.echo import EchoAddresses
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.load import Send, closed_loop
from penstock.bench.harness.parts import Part
from penstock.bench.harness.processes import cpu_s
from penstock.bench.harness.report import Bound, Table
from penstock.bench.overhead.sends import client_hit_of, echo_of, generate_of, miss_of
from penstock.bench.overhead.stacks import KEY, Choices, instant_stack, processes_of
from penstock.bench.overhead.stored_texts import StoredTexts
from penstock.client import Penstock
from penstock.rpc.peers.stream import open_channel

CALLERS, MANY_CALLERS = 16, 64
WARM_UP_S = 0.5
ROUNDS, SECONDS, ALONE_S = 7, 2.0, 1.0
KEYS, QUICK_KEYS = 50_000, 500
BOUNDS = {
    "cell_miss_cpu_vs_echo": Bound("<=", 5),
    "sep_miss_cpu_vs_echo": Bound("<=", 10),
    "cell_generate_cpu_vs_echo": Bound("<=", 7),
    "cell_miss_rps_ratio": Bound(">=", 0.4),
    "sep_miss_rps_ratio": Bound(">=", 0.25),
    "cell_miss_p50_ratio": Bound("<=", 2.2),
    "cell_service_hit_rps_ratio": Bound(">=", 0.5),
    "cell_client_hit_rps_ratio": Bound(">=", 3.5),
}
RATIOS = {
    "cell_miss_cpu_vs_echo": ("cell_miss", "echo", "cpu_ms"),
    "sep_miss_cpu_vs_echo": ("sep_miss", "echo", "cpu_ms"),
    "cell_generate_cpu_vs_echo": ("cell_generate", "echo", "cpu_ms"),
    "cell_miss_rps_ratio": ("cell_miss", "echo", "rps"),
    "sep_miss_rps_ratio": ("sep_miss", "echo", "rps"),
    "cell_miss_p50_ratio": ("cell_miss", "echo", "p50_ms"),
    "sep_miss_p50_ratio": ("sep_miss", "echo", "p50_ms"),
    "cell_service_hit_rps_ratio": ("cell_service_hit", "echo_64", "rps"),
    "cell_client_hit_rps_ratio": ("cell_client_hit", "echo_64", "rps"),
    "cell_service_hit_cpu_vs_echo": ("cell_service_hit", "echo_64", "cpu_ms"),
    "cell_client_hit_cpu_vs_echo": ("cell_client_hit", "echo_64", "cpu_ms"),
}
"""Figure → side, the side that it is divided by, and what of them."""


class Calls(NamedTuple):
    """Calls of one side in one round."""

    cpu_ms: float
    """CPU of all its processes for each answer."""
    rps: float
    """Answers a second."""
    p50_ms: float
    """Of one caller."""


@dataclass(frozen=True)
class Side:
    """Who sends what, with how many callers, and whose CPU counts."""

    send: Send
    pids: list[int]
    callers: int = CALLERS


Round = Mapping[str, Calls]


async def measure_calls(echo: EchoAddresses, *, quick: bool) -> Part:
    """All sides, interleaved."""
    rounds, seconds = (2, 0.3) if quick else (ROUNDS, SECONDS)
    keys = QUICK_KEYS if quick else KEYS
    async with _sides(echo, keys) as (sides, texts):
        for side in sides.values():
            await closed_loop(side.send, side.callers, WARM_UP_S)
        rows = [await _round(sides, number, seconds) for number in range(rounds)]
        share = await texts.cache_share()
    figures = [_figures(row) for row in rows]
    context = {
        "callers": f"{CALLERS}; hits and echo_64: {MANY_CALLERS}; p50: 1",
        "stored_texts": keys,
        "service_hits_by_cache_share": round(share, 3),
    }
    intervals = bootstrap(figures, medians, "rounds")
    return Part(medians(figures), context, (_table(rows),), intervals)


@contextlib.asynccontextmanager
async def _sides(
    echo: EchoAddresses, keys: int
) -> AsyncIterator[tuple[dict[str, Side], StoredTexts]]:
    with provider_process() as provider:
        async with (
            instant_stack(echo, Choices("cell", provider=provider)) as cell,
            instant_stack(echo, Choices("processes")) as separate,
            open_channel(echo.bare) as channel,
            Penstock(cell.addresses["router"], KEY) as client,
        ):
            texts = StoredTexts(cell, keys)
            await texts.fill()
            of_cell, of_separate = processes_of(cell), processes_of(separate)
            bare = echo_of(channel)
            sides = {
                "echo": Side(bare, [echo.pid]),
                "cell_miss": Side(miss_of(cell), of_cell),
                "sep_miss": Side(miss_of(separate), of_separate),
                "cell_generate": Side(generate_of(cell), of_cell),
                "echo_64": Side(bare, [echo.pid], MANY_CALLERS),
                "cell_service_hit": Side(texts.send, of_cell, MANY_CALLERS),
                "cell_client_hit": Side(client_hit_of(client), of_cell, MANY_CALLERS),
            }
            yield sides, texts


async def _round(sides: Mapping[str, Side], number: int, seconds: float) -> Round:
    order = list(sides) if number % 2 else list(sides)[::-1]
    return {name: await _calls(sides[name], seconds) for name in order}


async def _calls(side: Side, seconds: float) -> Calls:
    before_s = sum(map(cpu_s, side.pids))
    loaded = await closed_loop(side.send, side.callers, seconds)
    used_s = sum(map(cpu_s, side.pids)) - before_s
    alone = await closed_loop(side.send, 1, min(ALONE_S, seconds))
    return Calls(used_s * 1e3 / len(loaded.latencies_ms), loaded.rps, alone.p50_ms())


def _figures(row: Round) -> dict[str, float]:
    """The ratios of one round, and what they are made of."""
    ratios = {
        name: getattr(row[side], what) / getattr(row[to], what)
        for name, (side, to, what) in RATIOS.items()
    }
    raw = {
        f"{side}_{what}": getattr(calls, what)
        for side, calls in row.items()
        for what in Calls._fields
    }
    return ratios | dict(sorted(raw.items()))


def _table(rows: list[Round]) -> Table:
    columns = ("side", "round", "CPU ms a call", "calls a second", "p50 of one caller, ms")
    lines = tuple(
        (side, number, *row[side])
        for side in sorted(rows[0])
        for number, row in enumerate(rows, start=1)
    )
    return Table("a cell, separate processes, and a bare echo", columns, lines)
