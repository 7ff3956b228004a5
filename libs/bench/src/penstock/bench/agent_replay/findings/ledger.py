"""Do the receipts say what was saved? Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from penstock.bench.agent_replay.findings.costs import (
    Estimate,
    Positions,
    clusters_of,
    costs_by_cluster,
    estimate,
)
from penstock.bench.agent_replay.players.arms import DEFAULTS
from penstock.bench.agent_replay.players.load_plan import Answered
from penstock.bench.agent_replay.players.plays import Play
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST

Costs = Mapping[str, float]
"""Micro-dollars by cluster of runs."""


def savings_of(play: Play) -> Counter[str]:
    """What the receipts of a play say was saved, in micro-dollars by technique."""
    total: Counter[str] = Counter()
    for each in play.answered:
        total.update(each.savings)
    return total


def ledger_error(pairs: Sequence[tuple[Play, Play]]) -> dict[str, Estimate]:
    """How far the receipts are off, as shares of what was measured.

    `ledger_error` compares the savings with what the same calls cost more directly, at a provider
    with a prefix cache; `ledger_error_defaults` the same without the arm of the opt-ins.
    `ledger_paid_error` compares what receipts say was paid with the provider's bill.

    Args:
        pairs: the direct play of each workload, and that through Penstock.
    """
    as_shipped = [pair for pair in pairs if pair[1].arm == DEFAULTS]
    return {
        "ledger_error": _savings_error(pairs),
        "ledger_error_defaults": _savings_error(as_shipped),
        "ledger_paid_error": _paid_error(pairs),
    }


def _savings_error(pairs: Sequence[tuple[Play, Play]]) -> Estimate:
    said = _sums(_said_by_cluster(play, _saved_microusd) for _, play in pairs)
    direct = _sums(costs_by_cluster(play, WRITES_COST) for play, _ in pairs)
    through = _sums(costs_by_cluster(play, WRITES_COST) for _, play in pairs)
    less = {name: cost - through.get(name, 0.0) for name, cost in direct.items()}
    return _error(said, less)


def _paid_error(pairs: Sequence[tuple[Play, Play]]) -> Estimate:
    paid = _sums(_said_by_cluster(play, lambda each: each.paid_microusd) for _, play in pairs)
    return _error(paid, _sums(costs_by_cluster(play, WRITES_COST) for _, play in pairs))


def _saved_microusd(answered: Answered) -> int:
    return sum(answered.savings.values())


def _said_by_cluster(play: Play, microusd: Callable[[Answered], int]) -> Costs:
    clusters = clusters_of(play.workload)
    return _sums({clusters[each.run]: microusd(each)} for each in play.answered)


def _sums(parts: Iterable[Costs]) -> Costs:
    sums: dict[str, float] = defaultdict(float)
    for part in parts:
        for cluster, microusd in part.items():
            sums[cluster] += microusd
    return sums


def _error(said: Costs, measured: Costs) -> Estimate:
    """How far one sum is from the other, as a share of it, and how far that is over clusters."""
    names = sorted(said.keys() | measured.keys())
    first, second = (
        np.array([costs.get(name, 0.0) for name in names]) for costs in (said, measured)
    )

    def error(at: Positions) -> float:
        difference = first[at].sum() - second[at].sum()
        return float(abs(difference) / max(1.0, abs(second[at].sum())))

    return estimate(len(names), error)
