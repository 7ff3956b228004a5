"""A replay of agents' recorded traffic against a simulated provider: what all of Penstock saves
together, losses included.

The stack runs as `make up` starts it; provider (TLS, scripted) and load generator are processes of
their own. The provider answers with the recorded turns, keeps a prefix cache as OpenAI documents it
and takes as long as a large model would, by published measurements; its times and the arrivals are
divided by a factor, so what is said of latency is **simulated** but for `p0_added_…`, which is
measured at times that are not divided. Divided times make Penstock's own time weigh ten times as
much as it does.

W1 are tau-bench's conversations as recorded; W2 the same with what changes from call to call before
the instructions, in six styles, three of which no rule in the code matches, and tools in changing
order; W3 closed answers (intents of Banking77 and CLINC150, functions of BFCL) of which some are
asked more often than others; W4 embeddings of XQuAD on the model that comes with Penstock. Costs
are the provider's bills of all input and output. `…_cost_cut` is against direct calls with the
provider's prefix cache; `…_by_hand` is what a careful client reaches without a gateway: answers in
a dictionary, tools in one order, the clock moved to the end; `…_litellm` what LiteLLM's proxy does
with fewer closed answers, where `make peers` has installed it. Intervals are 95 %, by bootstrap
over tasks or questions; those of wrong answers by Clopper and Pearson.
"""

from __future__ import annotations

import asyncio

from penstock.bench.agent_replay.findings import mix, pages
from penstock.bench.agent_replay.findings.figures import all_figures, split
from penstock.bench.agent_replay.players.measuring import PARTS, measure
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result
from penstock.service.program import loop_factory

__all__ = ["NEEDS_MODELS", "PARTS", "run"]

NEEDS_MODELS = True
BOUNDS = {
    "errors": Bound("<=", 0),
    "wrong_writes": Bound("<=", 0),
    "wrong_exact": Bound("<=", 0),
    "prompts_lossy": Bound("<=", 0),
    "wrong_upper95_share": Bound("<=", 1),
    "ledger_error": Bound("<=", 0.01),
    "w1_cost_cut_low95": Bound(">=", 0),
    "w2_cost_cut": Bound(">=", 0.5),
    "w2_worst_style": Bound(">=", 0.35),
    "w3_gain_over_exact": Bound(">=", 0.1),
    "w3_gain_low95": Bound(">=", 0.05),
    "p0_added_p50_share": Bound("<=", 0.01),
}
COUNTS = frozenset({"errors", "wrong_writes", "wrong_exact", "prompts_lossy"})
OVER_ALL = COUNTS | {
    "prompts_shaped",
    "reused",
    "wrong_upper95_share",
    "ledger_error",
    "ledger_error_defaults",
    "ledger_paid_error",
}
"""Figures over all workloads: of one alone they would be others, under the same names."""


def run(options: Options) -> Result:
    """Measure."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        measured = runner.run(measure(options))
    plays, embedded = measured.plays, measured.embedded
    mixed, plots = mix.mixed(plays, embedded)
    found = {**all_figures(plays, embedded), **mixed}
    if options.part:
        found = {name: figure for name, figure in found.items() if name not in OVER_ALL}
    figures, intervals = split(found)
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    tables = pages.tables(plays, measured.ablations)
    return Result(
        figures,
        bounds,
        pages.context(options, plays),
        tables,
        plots,
        pages.notes(plays, measured.left_out),
        intervals=intervals,
        exact=frozenset(COUNTS & figures.keys()),
    )
