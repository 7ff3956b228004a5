"""The figures of the replay and their intervals, from what was played. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from penstock.bench.agent_replay.findings.costs import (
    Estimate,
    added_share,
    calls_saved,
    cost_cut,
    latency_cut,
    mean,
    median,
    timed_calls,
)
from penstock.bench.agent_replay.findings.ledger import ledger_error
from penstock.bench.agent_replay.findings.reuse import Audit, audit, wrong_answers
from penstock.bench.agent_replay.players.arms import (
    CAREFUL,
    DEFAULTS,
    DIRECT,
    LITELLM,
    LITELLM_SEMANTIC,
    OFF,
    OPT_INS,
    Arm,
)
from penstock.bench.agent_replay.players.embeddings import Embedded
from penstock.bench.agent_replay.players.plays import Play, paired
from penstock.bench.agent_replay.players.workloads import CLOSED, GATEWAYS
from penstock.bench.agent_replay.provider.prefix_books import AUTOMATIC, WRITES_COST
from penstock.bench.agent_replay.traffic.closed_answers import first_asked, repeated_share
from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.report import Number

ERROR_BOUND = 0.03
"""The cache's `max_error_rate` as it ships."""
SEMANTIC = "semantic_hit"
Figures = dict[str, Number | Estimate]
ByArm = Mapping[str, Play]
Plays = Mapping[str, ByArm]


def split(found: Figures) -> tuple[dict[str, Number], dict[str, Interval]]:
    """The figures, and the intervals of those that have one."""
    figures = {name: one.value if isinstance(one, Estimate) else one for name, one in found.items()}
    intervals = {
        name: one.interval
        for name, one in found.items()
        if isinstance(one, Estimate) and one.interval is not None
    }
    return figures, intervals


def all_figures(plays: Plays, embedded: Embedded | None) -> Figures:
    """Every figure that these plays give."""
    figures: Figures = {"errors": _errors(plays, embedded)}
    through = [play for arms in plays.values() for play in arms.values() if play.arm.through]
    figures |= _audited(audit(through), embedded)
    if "w1-timed" in plays:
        figures |= added(plays["w1-timed"])
    if "w1-70" in plays:
        figures |= as_recorded(plays["w1-70"], plays["w1-30"])
    heads = [arms for name, arms in plays.items() if name.startswith("w2-")]
    if heads:
        figures |= with_heads(heads)
    if CLOSED in plays:
        figures |= closed(plays[CLOSED])
    figures |= beside_litellm(plays.get(GATEWAYS, {}))
    if embedded is not None:
        figures["w4_calls_saved"] = embedded.calls_saved
        figures["w4_wrong"] = embedded.wrong
    pairs = [
        paired(arms[DIRECT.name], play)
        for arms in plays.values()
        for name, play in arms.items()
        if name in (DEFAULTS.name, OPT_INS.name) and DIRECT.name in arms
    ]
    return figures | (ledger_error(pairs) if pairs else {})


def _errors(plays: Plays, embedded: Embedded | None) -> int:
    failed = sum(len(play.errors) for arms in plays.values() for play in arms.values())
    return failed + (embedded.errors if embedded is not None else 0)


def _audited(found: Audit, embedded: Embedded | None) -> Figures:
    figures: Figures = {"wrong_writes": found.wrong_writes, "prompts_shaped": found.shaped}
    figures["prompts_lossy"] = found.lossy.total()
    figures["reused"] = found.reused.total()
    if found.reused[SEMANTIC]:
        figures["wrong_upper95_share"] = _of_bound(found.bounds(SEMANTIC))
    wrong = embedded.wrong if embedded is not None else 0
    exact = sum(count for name, count in found.wrong.items() if name != SEMANTIC)
    figures["wrong_exact"] = exact + wrong
    return figures


def _of_bound(wrong: Interval) -> Estimate:
    """The upper end of a share of wrong answers as a share of what is configured."""
    low, high = wrong.low / ERROR_BOUND, wrong.high / ERROR_BOUND
    return Estimate(high, Interval(low, high, wrong.n, wrong.of))


def low_end(name: str, estimate: Estimate) -> Figures:
    """The lower end of a figure's interval as a figure; nothing where it has none."""
    interval = estimate.interval
    return {} if interval is None else {name: Estimate(interval.low, interval)}


def added(arms: ByArm) -> Figures:
    """What Penstock with everything off adds to calls whose times are not divided."""
    off, direct = (arms[arm.name] for arm in (OFF, DIRECT))
    return {
        "p0_added_p50_share": added_share(off),
        "p0_added_p50_ms": statistics.median(call.added_ms for call in timed_calls(off)),
        "d0_added_p50_ms": statistics.median(call.added_ms for call in timed_calls(direct)),
        "upstream_p50_ms": statistics.median(call.took_ms for call in timed_calls(off)),
    }


def as_recorded(high: ByArm, low: ByArm) -> Figures:
    """W1."""
    figures: Figures = {}
    for arm, name in ((DEFAULTS, "w1"), (OPT_INS, "w1_opt_ins"), (CAREFUL, "w1_by_hand")):
        cut = cost_cut([beside_direct(high, arm)], WRITES_COST)
        figures[f"{name}_cost_cut"] = cut
        figures |= low_end(f"{name}_cost_cut_low95", cut)
    automatic = cost_cut([beside_direct(high, DEFAULTS)], AUTOMATIC)
    figures["w1_cost_cut_automatic"] = automatic
    figures |= latencies("w1", *beside_direct(high, DEFAULTS))
    return figures | latencies("w1_low_load", *beside_direct(low, DEFAULTS))


def beside_direct(arms: ByArm, arm: Arm) -> tuple[Play, Play]:
    """An arm's play beside the direct one, with the runs that are whole in both."""
    return paired(arms[DIRECT.name], arms[arm.name])


def latencies(name: str, before: Play, after: Play) -> Figures:
    """By how much the median and the mean latency are lower."""
    return {
        f"{name}_latency_cut_p50": latency_cut(before, after, median),
        f"{name}_latency_cut_mean": latency_cut(before, after, mean),
    }


def with_heads(styles: Sequence[ByArm]) -> Figures:
    """W2: over all six styles, and the worst of them."""
    figures: Figures = {}
    for arm, name in ((DEFAULTS, "w2_defaults"), (OPT_INS, "w2"), (CAREFUL, "w2_by_hand")):
        pairs = [beside_direct(arms, arm) for arms in styles if arm.name in arms]
        figures[f"{name}_cost_cut"] = cost_cut(pairs, WRITES_COST)
    worst = min((style_cut(arms) for arms in styles), key=lambda cut: cut.value)
    pairs = [beside_direct(arms, OPT_INS) for arms in styles]
    return figures | {
        "w2_worst_style": worst,
        "w2_cost_cut_automatic": cost_cut(pairs, AUTOMATIC),
    }


def style_cut(arms: ByArm) -> Estimate:
    """What the opt-ins save of one style's cost."""
    return cost_cut([beside_direct(arms, OPT_INS)], WRITES_COST)


def closed(arms: ByArm) -> Figures:
    """W3 at the exponent at which all arms play."""
    direct, defaults = beside_direct(arms, DEFAULTS)
    runs = defaults.workload.runs
    gain = calls_saved(defaults, first_asked(runs))
    return {
        "w3_calls_saved": calls_saved(defaults).value,
        "w3_calls_saved_by_hand": repeated_share(runs),
        "w3_gain_over_exact": gain,
        **low_end("w3_gain_low95", gain),
        "w3_cost_cut": cost_cut([(direct, defaults)], WRITES_COST),
        **latencies("w3", direct, defaults),
    }


def beside_litellm(arms: ByArm) -> Figures:
    """What LiteLLM's proxy and Penstock save of the same calls, and how many of their answers are
    wrong; nothing of what was not played, and nothing of a cache that reused nothing at all: equal
    requests are among the calls, so it did not work.
    """
    sides = (
        (LITELLM, "litellm"),
        (LITELLM_SEMANTIC, "litellm_semantic"),
        (DEFAULTS, "beside_litellm"),
    )
    figures: Figures = {}
    for arm, name in sides:
        if arm.name in arms:
            _, play = beside_direct(arms, arm)
            saved = calls_saved(play)
            if not saved.value:
                continue
            figures[f"w3_calls_saved_{name}"] = saved
            figures[f"w3_wrong_{name}"] = len(wrong_answers(play))
    return figures
