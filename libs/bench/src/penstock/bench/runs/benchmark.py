"""Agent runs: budgets in trees, simulated; which change broke a conversation's prefix, by the books
of a simulated provider; what runs cost; and when a run's next step is served, simulated.

Trees of agents spend a budget through three limiters that are killed, on a store whose requests and
answers are lost; in virtual time, by seeds, which a campaign has logged.

Changes of each kind are injected into the last prompt of tau-bench conversations, and Penstock is
asked what broke the prefix. What it says that this cost is compared with the books of a simulated
provider, whose cache keeps prefixes as OpenAI documents it. Prefixes that the provider drops or
keeps no longer must not be taken for breaks, nor breaks for those.

The order of a run's next step among its siblings' calls is simulated; see `next_steps`. What runs
cost is compared with the books of providers that serve a running stack; see `costs`. Intervals are
over tau-bench's tasks, and over the seeds of the simulation.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock.bench.harness.intervals import bootstrap, of_share
from penstock.bench.harness.json_lines import rows
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Result, Table
from penstock.bench.runs import costs, next_steps, prefixes, trees
from penstock.bench.runs.costs import CostFigures
from penstock.bench.runs.injected import CHANGES
from penstock.bench.runs.next_steps import Waits
from penstock.bench.runs.prefixes import Counts
from penstock.bench.tokens.data import TAU_BENCH, trajectories
from penstock.prompts.prefix_breaks import BreakKind
from penstock.service.program import loop_factory

NEEDS_MODELS = True
QUICK_CONVERSATIONS, QUICK_TREES = 10, 3
SEEDS, QUICK_SEEDS = 1000, 50
DRAWS = 1_000
COST_RUNS, COST_CALLS, QUICK_COST_RUNS = 8, 30, 1
COST_KINDS = ("answer", "reused", "escalation", "hedge", "failed_try", "job")
BOUNDS = {
    "tree_seeds": Bound(">=", trees.MIN_SEEDS),
    "tree_overshoot": Bound("<=", 0),
    "tree_lost_share": Bound("<=", 0),
    "resumed_paid_twice": Bound("<=", 0),
    "reserve_kept": Bound(">=", 1),
    "run_cost_error_microusd": Bound("<=", 0),
    "run_cost_kinds": Bound(">=", len(COST_KINDS)),
    "prefix_break_kinds": Bound(">=", 20),
    "prefix_breaks_named": Bound(">=", 0.95),
    "prefix_cost_error": Bound("<=", 0.01),
    "eviction_blamed_wrongly": Bound("<=", 0),
    "repairs_lossy": Bound("<=", 0),
    "next_step_wait_cut": Bound(">=", 0.5),
    "throughput_kept": Bound(">=", 0.98),
}

COUNTS = frozenset(BOUNDS) - {
    "prefix_breaks_named",
    "prefix_cost_error",
    "next_step_wait_cut",
    "throughput_kept",
}


def run(options: Options) -> Result:
    """Measure."""
    conversations = list(trajectories(options))
    if options.quick:
        conversations = conversations[:QUICK_CONVERSATIONS]
    say("runs: budget trees")
    seeds = trees.played(range(QUICK_TREES)) if options.quick else rows(trees.LOG)
    tree_figures = trees.figures_of(seeds)
    say("runs: changes injected into prompts")
    by_task = prefixes.count_by_task(conversations)
    counts = prefixes.together(by_task)
    repairs, lossy = prefixes.lossy_repairs(conversations)
    say("runs: next steps behind their siblings")
    waits = next_steps.measure(range(QUICK_SEEDS if options.quick else SEEDS))
    say("runs: costs against the providers' books")
    cost = _measured_costs(QUICK_COST_RUNS if options.quick else COST_RUNS)
    figures = {
        **tree_figures,
        "run_cost_error_microusd": cost.error_microusd,
        "run_cost_billed_microusd": cost.billed_picousd / 1e6,
        "run_cost_runs": cost.runs,
        "run_cost_calls": cost.calls.total(),
        "run_cost_kinds": sum(cost.calls[kind] > 0 for kind in COST_KINDS),
        "prefix_break_kinds": len(counts.injected),
        "prefix_breaks_injected": counts.injected.total(),
        "prefix_breaks_named": counts.named.total() / counts.injected.total(),
        **prefixes.cost_error(by_task),
        "prefix_cost_microusd": counts.booked_microusd,
        "evictions": counts.evictions,
        "evictions_named": counts.evictions_named / max(1, counts.evictions),
        "eviction_blamed_wrongly": counts.blamed_wrongly,
        "repairs_made": repairs,
        "repairs_lossy": lossy,
        **next_steps.figures(waits),
    }
    context = {"conversations": len(conversations), "data": options.source(TAU_BENCH)}
    tables = (_costs(cost), _kinds(counts), _next_steps(waits))
    named = of_share(counts.named.total(), counts.injected.total(), "injected changes")
    intervals = {"prefix_breaks_named": named}
    intervals |= bootstrap(by_task, prefixes.cost_error, "tasks", DRAWS)
    intervals |= bootstrap(waits, next_steps.figures, "seeds", DRAWS)
    return Result(figures, BOUNDS, context, tables, intervals=intervals, exact=COUNTS)


def _measured_costs(runs: int) -> CostFigures:
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        return runner.run(costs.measure(Path(folder), runs, COST_CALLS))


def _costs(cost: CostFigures) -> Table:
    columns = ("what a send was paid for", "sends")
    rows = (*sorted(cost.calls.items()), ("none: every provider failed", cost.failed))
    return Table("Sends of runs whose cost was compared with the providers' books", columns, rows)


def _next_steps(seeds: Sequence[Waits]) -> Table:
    waits = next_steps.sums(seeds)

    def _row(waited_s: float, ended_s: float) -> tuple[float, float]:
        return waited_s / len(seeds) * 1e3, waits.tokens / ended_s

    rows = (
        ("by deadline alone", *_row(waits.by_deadline_s, waits.by_deadline_ended_s)),
        ("by run, then deadline", *_row(waits.by_run_s, waits.by_run_ended_s)),
    )
    columns = ("order", "ms to the next step's answer", "tokens a second")
    return Table("A run's next step behind 8 siblings of 16 calls (simulated)", columns, rows)


def _kinds(counts: Counts) -> Table:
    rows = tuple(
        (kind.value, counts.injected[kind], counts.named[kind], _instead(counts, kind))
        for kind in CHANGES
    )
    columns = ("kind of change", "injected", "named", "said instead")
    return Table("Changes injected into prompts", columns, rows)


def _instead(counts: Counts, kind: BreakKind) -> str:
    said = {other for injected, other in counts.wrong if injected is kind}
    return ", ".join(sorted(other.name.lower() if other else "nothing" for other in said))
