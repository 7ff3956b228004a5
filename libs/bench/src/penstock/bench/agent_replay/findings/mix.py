"""The cost and the time of traffic that is a mix of the workloads: what the shares make of the cut.
Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from penstock.bench.agent_replay.findings.costs import cost_microusd
from penstock.bench.agent_replay.findings.figures import Plays
from penstock.bench.agent_replay.players.arms import DEFAULTS, DIRECT
from penstock.bench.agent_replay.players.embeddings import Embedded
from penstock.bench.agent_replay.players.plays import Play, paired
from penstock.bench.agent_replay.players.workloads import CLOSED, FACTOR
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST
from penstock.bench.harness.report import Number, Plot

EMBEDDED_SHARE = 0.1
"""Share of the calls that embed, along the curve."""
STEPS = 100
CLAIMED = 0.65


class PerCall(NamedTuple):
    """The mean of a workload's calls, directly and through Penstock."""

    before: float
    after: float


def cut(workloads: Sequence[PerCall], shares: Sequence[float]) -> float:
    """What is saved of a mix with these shares of the calls."""
    before = sum(share * each.before for each, share in zip(workloads, shares, strict=True))
    after = sum(share * each.after for each, share in zip(workloads, shares, strict=True))
    return 1 - after / before


def curve(workloads: Mapping[str, PerCall]) -> tuple[list[float], list[float]]:
    """The share of closed answers among all calls, and the cut at it.

    Args:
        workloads: `w1`, `w3` and `w4`; a fixed share of the calls is `w4`, the rest `w1`.
    """
    of = [workloads[name] for name in ("w1", "w3", "w4")]
    x = [step / STEPS * (1 - EMBEDDED_SHARE) for step in range(STEPS + 1)]
    return x, [cut(of, (1 - EMBEDDED_SHARE - share, share, EMBEDDED_SHARE)) for share in x]


def share_for(claimed: float, x: Sequence[float], y: Sequence[float]) -> float:
    """The smallest share at which so much is saved; -1 for never."""
    return next((share for share, saved in zip(x, y, strict=True) if saved >= claimed), -1.0)


def mixed(plays: Plays, embedded: Embedded | None) -> tuple[dict[str, Number], tuple[Plot, ...]]:
    """W5: the cut of a mix, as figures and as a curve; nothing where a workload was not played."""
    if "w1-70" not in plays or CLOSED not in plays or embedded is None:
        return {}, ()
    costs = _per_call(plays, lambda play: cost_microusd(play, WRITES_COST))
    costs["w4"] = PerCall(
        statistics.mean(each.paid_microusd for each in embedded.off),
        statistics.mean(each.paid_microusd for each in embedded.defaults),
    )
    times = _per_call(plays, lambda play: FACTOR * sum(each.latency_ms for each in play.answered))
    times["w4"] = PerCall(
        statistics.mean(each.latency_ms for each in embedded.off),
        statistics.mean(each.latency_ms for each in embedded.defaults),
    )
    x, y = curve(costs)
    third = (1 / 3, 1 / 3, 1 / 3)
    figures: dict[str, Number] = {
        "w5_share_for_65": share_for(CLAIMED, x, y),
        "w5_cost_cut_thirds": cut([costs[name] for name in ("w1", "w3", "w4")], third),
        "w5_latency_cut_thirds": cut([times[name] for name in ("w1", "w3", "w4")], third),
        "w5_cost_cut_most": max(y),
    }
    plot = Plot(
        "Cost saved against direct calls, by the share of closed answers",
        "share of calls that ask for a closed answer (a tenth embed, the rest are conversations)",
        "share of the cost saved",
        {"Penstock as it ships": (x, y), "claimed": ([x[0], x[-1]], [CLAIMED] * 2)},
    )
    return figures, (plot,)


def _per_call(plays: Plays, total: Callable[[Play], float]) -> dict[str, PerCall]:
    """A sum over a play's calls as a mean, by workload."""
    found = {}
    for short, name in (("w1", "w1-70"), ("w3", CLOSED)):
        pair = paired(plays[name][DIRECT.name], plays[name][DEFAULTS.name])
        found[short] = PerCall(*(total(play) / len(play.answered) for play in pair))
    return found
