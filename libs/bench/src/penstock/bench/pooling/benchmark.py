"""Pooled connections to an upstream against a new one for each call, over TLS; first tokens.

The upstream is the scripted one with 20 ms to its answer, behind a proxy that adds 10 ms of round
trip; a new connection costs one round trip more, as TCP's handshake does. All sides are the serving
client with a TLS context each. Those that do not pool keep no connection, and one of these calls a
server that gives no session tickets, so that every handshake is a full one; `latency_cut` and
`connect_overhead_cut` compare with the one that resumes. For the first tokens, calls take turns
with the same rest before each: a bare hop, the upstream directly, the whole path.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.pooling.connections import ROUND_TRIP_S, UPSTREAM_S, Connecting, compare
from penstock.bench.pooling.first_tokens import measure_first_tokens
from penstock.service.program import loop_factory

BOUNDS = {
    "connect_overhead_cut": Bound(">=", 0.9),
    "latency_cut": Bound(">=", 0.3),
    "first_token_added_hops": Bound("<=", 4.5),
    "cancel_closes_ms": Bound("<=", 50),
}


def run(options: Options) -> Result:
    """Measure."""
    calls = 10 if options.quick else 150
    with (
        echo_process() as echo,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        sides = runner.run(compare(Path(folder), calls))
        first = runner.run(measure_first_tokens(Path(folder), echo.bare, calls))
    pooled, fresh, full = sides.pooled, sides.fresh, sides.full_handshake
    figures = {
        "connect_overhead_cut": 1 - pooled.opened / fresh.opened,
        "latency_cut": 1 - pooled.mean_ms / fresh.mean_ms,
        "reuse_share": 1 - pooled.opened / calls,
        "tls_resumed_share": fresh.resumed / (fresh.opened - 1),
        "pooled_ms": pooled.mean_ms,
        "fresh_ms": fresh.mean_ms,
        "fresh_full_handshake_ms": full.mean_ms,
        "first_token_added_hops": first.added_hops,
        "bare_hop_p50_ms": first.hop_ms,
        "first_token_direct_p50_ms": first.direct_ms,
        "first_token_path_p50_ms": first.path_ms,
        "cancel_closes_ms": first.slowest_cancel_ms,
    }
    context = {
        "calls": calls,
        "data": "one short conversation",
        "upstream_ms": UPSTREAM_S * 1e3,
        "round_trip_ms": ROUND_TRIP_S * 1e3,
    }
    rows = {"pooled": pooled, "a new one a call": fresh, "a new one a call, no tickets": full}
    return Result(figures, BOUNDS, context, (_table(rows, calls),))


def _table(sides: dict[str, Connecting], calls: int) -> Table:
    columns = ("", "set up", "by a resumed session", "mean ms a call", "CPU ms a call, both ends")
    rows = tuple(
        (name, side.opened, side.resumed, side.mean_ms, side.cpu_ms / calls)
        for name, side in sides.items()
    )
    return Table("TLS connections", columns, rows)
