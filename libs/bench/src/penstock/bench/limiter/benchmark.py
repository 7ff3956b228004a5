"""The limiter: decisions a second from a lease and through Redis, overshoot, leaked holds; budgets
under spikes of cost, simulated.

Overshoot, leaks and refunds: three limiter processes on one store, and callers that are killed
between answer and settlement. Availability and overrun are simulated: the serving script in virtual
time on the Azure conversation trace with spikes of cost, each seed with other spikes and
priorities. `overrun_cut` is against a limit on the number of requests, `overrun_cut_vs_spent`
against a budget that counts money once the answer has come, as gateways do. Availability is that of
critical calls, a tenth of the load.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path as Folder

from penstock.bench.harness.data_sets import azure_trace
from penstock.bench.harness.intervals import bootstrap, means
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.limiter import budget, in_process, processes
from penstock.service.program import loop_factory
from penstock.simulation.azure_trace import FOLDER, TraceRow

SEEDS = 8
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
EXACT = frozenset({"overshoot", "leaked_holds", "refunded_spend", "overrun_cut_strict"})
"""Micro-dollars counted, and whether any window of any seed overran at all."""
TITLE = "Budgets of a minute under spikes of cost, simulated"


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
    budgets = _budgets(options)
    context = {
        "data": options.source(FOLDER),
        "rules": "6 levels: 3 budgets (2 calendar, 1 rolling), 3 rates",
        "store": "Valkey 9.1, append-only file, fsync always, unix socket",
        "grpc": "item stream, open loop",
    }
    figures = decisions.figures | store_down.figures | separate | _budget_figures(budgets)
    intervals = decisions.intervals | store_down.intervals
    intervals |= bootstrap(budgets, _budget_figures, "seeds")
    table = Table(TITLE, tuple(budgets[0]), tuple(tuple(row.values()) for row in budgets))
    return Result(figures, BOUNDS, context, (table,), intervals=intervals, exact=EXACT)


def _budgets(options: Options) -> list[dict[str, float]]:
    """The rows of the seeds."""
    trace = azure_trace(options) or _generated_trace()
    return [_budget_row(trace, seed) for seed in range(1 if options.quick else SEEDS)]


def _budget_figures(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    mean = means(rows)
    return {
        "availability": mean["critical served"],
        "availability_worst_seed": min(row["critical served"] for row in rows),
        "overrun_cut": mean["cut"],
        "overrun_cut_vs_spent": mean["cut vs spent"],
        "overrun_cut_strict": min(row["cut, strict"] for row in rows),
        "availability_strict": mean["critical served, strict"],
        "low_served": mean["low served"],
    }


def _budget_row(trace: Sequence[TraceRow], seed: int) -> dict[str, float]:
    """A fixed limit of requests, a budget of what was spent, and our rule with expected and with
    strict holds.
    """
    limit = budget.budget_of(trace)
    calls = budget.arrivals(trace, seed)
    fixed = budget.fixed_requests(calls, limit, trace)
    expected = budget.limited(calls, limit, "expected")
    strict = budget.limited(calls, limit, "strict")
    spent = budget.spent_after_answer(calls, limit)
    overrun, overrun_spent = (max(1, side.overrun(limit)) for side in (fixed, spent))
    return {
        "seed": seed,
        "overrun of fixed requests, budgets": overrun / limit,
        "its critical served": fixed.share(4),
        "overrun of what was spent, budgets": overrun_spent / limit,
        "critical served by it": spent.share(4),
        "cut": 1 - expected.overrun(limit) / overrun,
        "cut vs spent": 1 - expected.overrun(limit) / overrun_spent,
        "critical served": expected.share(4),
        "low served": expected.share(1),
        "cut, strict": 1 - strict.overrun(limit) / overrun,
        "critical served, strict": strict.share(4),
    }


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
