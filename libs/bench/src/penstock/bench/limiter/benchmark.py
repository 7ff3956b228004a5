"""The limiter: decisions a second from a lease and through Redis, overshoot, leaked holds, budgets.

Overshoot, leaks and refunds: three limiter processes on one Redis, and callers that are killed
between answer and settlement. Availability and overrun: the serving script in virtual time on the
Azure conversation trace with spikes of cost, five seeds.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path as Folder

from penstock.bench.harness.data_sets import azure_trace
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.limiter import budget, in_process, processes
from penstock.service.program import loop_factory
from penstock.simulation.azure_trace import FOLDER, TraceRow

SEEDS = 5
BOUNDS = {
    "overshoot": Bound("<=", 0),
    "leaked_holds": Bound("<=", 0),
    "refunded_spend": Bound("<=", 0),
    "decisions_per_s_lease": Bound(">=", 50_000),
    "decision_p99_us": Bound("<=", 50),
    "decisions_per_s_redis": Bound(">=", 5_000),
    "store_down_added_ms": Bound("<=", 5),
    "availability": Bound(">=", 0.99),
    "overrun_cut": Bound(">=", 0.85),
    "overrun_cut_strict": Bound(">=", 1.0),
}
COLUMNS = (
    "seed",
    "overrun of fixed requests, budgets",
    "its critical served",
    "cut, expected",
    "critical served",
    "low served",
    "cut, strict",
    "critical served, strict",
)


def run(options: Options) -> Result:
    """Measure."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        root = Folder(folder)
        decisions = runner.run(in_process.decisions(root / "a", options.quick))
        store_down = runner.run(in_process.store_down(root / "b", options.quick))
        separate = runner.run(processes.measure(root / "c", options.quick))
    budgets, table = _budgets(options)
    context = {
        "data": options.source(FOLDER),
        "rules": "6 levels: 3 budgets (2 calendar, 1 rolling), 3 rates",
        "store": "Valkey 9.1, append-only file, fsync always, unix socket",
        "grpc": "item stream, open loop",
    }
    figures = decisions | store_down | separate | budgets
    return Result(figures, BOUNDS, context, (table,))


def _budgets(options: Options) -> tuple[dict[str, float], Table]:
    """A fixed limit of requests, and our rule with expected and with strict holds."""
    trace = azure_trace(options) or _generated_trace()
    rows = [_budget_row(trace, seed) for seed in range(1 if options.quick else SEEDS)]
    figures = {
        "availability": min(row[4] for row in rows),
        "overrun_cut": statistics.median(row[3] for row in rows),
        "overrun_cut_strict": min(row[6] for row in rows),
        "availability_strict": min(row[7] for row in rows),
        "low_served": statistics.median(row[5] for row in rows),
    }
    return figures, Table("Budgets of a minute under spikes of cost", COLUMNS, tuple(rows))


def _budget_row(trace: Sequence[TraceRow], seed: int) -> tuple[float, ...]:
    """The table's row of one seed."""
    limit = budget.budget_of(trace)
    calls = budget.arrivals(trace, seed)
    fixed = budget.fixed_requests(calls, limit, trace)
    expected = budget.limited(calls, limit, "expected")
    strict = budget.limited(calls, limit, "strict")
    overrun = max(1, fixed.overrun(limit))
    return (
        seed,
        overrun / limit,
        fixed.share(4),
        1 - expected.overrun(limit) / overrun,
        expected.share(4),
        expected.share(1),
        1 - strict.overrun(limit) / overrun,
        strict.share(4),
    )


def _generated_trace() -> list[TraceRow]:
    rng = random.Random(3)
    return [
        TraceRow(
            number / 5.5,
            round(rng.lognormvariate(6.5, 1.0)),
            min(budget.MAX_TOKENS, round(rng.lognormvariate(4.7, 1.0)) + 1),
        )
        for number in range(4_000)
    ]
