"""Pooled connections to an upstream against a new one for each call, over TLS, by simulated
distances; first tokens.

The upstream is the scripted one with 20 ms to its answer, behind a proxy that adds 10 ms of round
trip; a new connection costs one round trip more, as TCP's handshake does. All sides are the serving
client with a TLS context each. Those that do not pool keep no connection, and one of these calls a
server that gives no session tickets, so that every handshake is a full one; `latency_cut` and
`connect_overhead_cut` compare with the one that resumes. How large `latency_cut` is follows from
the two delays that were chosen: with a nearer upstream or a longer answer it is smaller. The curve
says how it depends on the distance, with the same 20 ms to the answer. For the first tokens, calls
take turns with the same rest before each: a bare hop, the upstream directly, the whole path.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.intervals import Interval, bootstrap, means
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Plot, Result, Table
from penstock.bench.pooling import first_tokens
from penstock.bench.pooling.connections import (
    ROUND_TRIP_S,
    UPSTREAM_S,
    Connecting,
    Sides,
    compare,
)
from penstock.service.program import loop_factory

BOUNDS = {
    "connect_overhead_cut": Bound(">=", 0.9),
    "latency_cut": Bound(">=", 0.3),
    "first_token_added_hops": Bound("<=", 4.5),
    "cancel_closes_ms": Bound("<=", 50),
}

CURVE_S = (0.0, 0.002, 0.005, 0.010, 0.020, 0.040, 0.080)
"""Round trips of the curve: from the same machine to another continent."""
CURVE_CALLS = 25
Curve = Mapping[float, tuple[float, Interval | None]]
"""Latency cut and its interval, by the round trip in seconds."""


def run(options: Options) -> Result:
    """Measure."""
    calls = 10 if options.quick else 150
    with (
        echo_process() as echo,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        sides = runner.run(compare(Path(folder), calls))
        first = runner.run(first_tokens.measure(Path(folder), echo.bare, calls))
        curve = _by_distance(runner, Path(folder), 4 if options.quick else CURVE_CALLS)
    figures = _connecting(sides, calls) | first_tokens.figures(first.rounds)
    figures |= {"cancel_closes_ms": max(first.cancels_ms)}
    calls_ms = _rows(sides)
    intervals = {
        **bootstrap(calls_ms, _latencies, "calls of each side"),
        **bootstrap(first.rounds, first_tokens.figures, "calls of each side", 1_000),
        **bootstrap(first.cancels_ms, lambda ms: {"cancel_closes_ms": max(ms)}, "cancels"),
    }
    figures |= _latencies(calls_ms)
    context = {
        "calls": calls,
        "data": "one short conversation",
        "upstream_ms": UPSTREAM_S * 1e3,
        "round_trip_ms": ROUND_TRIP_S * 1e3,
    }
    names = ("pooled", "a new one a call", "a new one a call, no tickets")
    table = _table(dict(zip(names, sides, strict=True)), calls)
    return Result(
        figures,
        BOUNDS,
        context,
        (table, _curve_table(curve)),
        (_plot(curve),),
        intervals=intervals,
        exact=frozenset({"connect_overhead_cut", "reuse_share", "tls_resumed_share"}),
    )


def _rows(sides: Sides) -> list[dict[str, float]]:
    """The milliseconds of each turn, by side."""
    return [
        dict(zip(("pooled", "fresh", "full"), row, strict=True))
        for row in zip(*(side.took_ms for side in sides), strict=True)
    ]


def _by_distance(runner: asyncio.Runner, folder: Path, calls: int) -> Curve:
    """What a pool saves of the latency, by the round trip in seconds."""
    curve: dict[float, tuple[float, Interval | None]] = {}
    for round_trip_s in CURVE_S:
        rows = _rows(runner.run(compare(folder, calls, round_trip_s)))
        interval = bootstrap(rows, _latencies, "calls of each side").get("latency_cut")
        curve[round_trip_s] = _latencies(rows)["latency_cut"], interval
    return curve


def _curve_table(curve: Curve) -> Table:
    rows = tuple(
        (
            f"{round_trip_s * 1e3:g}",
            cut,
            f"{interval.low:.3f} to {interval.high:.3f}" if interval else "–",
        )
        for round_trip_s, (cut, interval) in curve.items()
    )
    columns = ("round trip, ms", "latency cut", "95 % interval")
    return Table("Latency cut by the simulated distance", columns, rows)


def _plot(curve: Curve) -> Plot:
    points = ([each_s * 1e3 for each_s in curve], [cut for cut, _ in curve.values()])
    title = f"What a pool saves by distance; {UPSTREAM_S * 1e3:g} ms to the answer"
    return Plot(title, "round trip, ms (simulated)", "latency cut", {"pooled": points})


def _connecting(sides: Sides, calls: int) -> dict[str, float]:
    """Shares of connections, which are counted."""
    return {
        "connect_overhead_cut": 1 - sides.pooled.opened / sides.fresh.opened,
        "reuse_share": 1 - sides.pooled.opened / calls,
        "tls_resumed_share": sides.fresh.resumed / (sides.fresh.opened - 1),
    }


def _latencies(calls_ms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    mean_ms = means(calls_ms)
    return {
        "latency_cut": 1 - mean_ms["pooled"] / mean_ms["fresh"],
        "pooled_ms": mean_ms["pooled"],
        "fresh_ms": mean_ms["fresh"],
        "fresh_full_handshake_ms": mean_ms["full"],
    }


def _table(sides: dict[str, Connecting], calls: int) -> Table:
    columns = ("", "set up", "by a resumed session", "mean ms a call", "CPU ms a call, both ends")
    rows = tuple(
        (name, side.opened, side.resumed, side.mean_ms, side.cpu_ms / calls)
        for name, side in sides.items()
    )
    return Table("TLS connections", columns, rows)
