"""Do the receipts say what was saved? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.bench.agent_replay.findings.costs import cost_microusd
from penstock.bench.agent_replay.players.arms import DEFAULTS
from penstock.bench.agent_replay.players.plays import Play
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST
from penstock.bench.harness.report import Number


def savings_of(play: Play) -> Counter[str]:
    """What the receipts of a play say was saved, in micro-dollars by technique."""
    total: Counter[str] = Counter()
    for each in play.answered:
        total.update(each.savings)
    return total


def ledger_error(pairs: Sequence[tuple[Play, Play]]) -> dict[str, Number]:
    """How far the receipts are off, as shares of what was measured.

    `ledger_error` compares the savings with what the same calls cost more directly, at a provider
    with a prefix cache; `ledger_error_defaults` the same without the arm of the opt-ins.
    `ledger_paid_error` compares what receipts say was paid with the provider's bill.

    Args:
        pairs: the direct play of each workload, and that through Penstock.
    """
    billed = sum(cost_microusd(play, WRITES_COST) for _, play in pairs)
    paid = sum(each.paid_microusd for _, play in pairs for each in play.answered)
    as_shipped = [pair for pair in pairs if pair[1].arm == DEFAULTS]
    return {
        "ledger_error": _savings_error(pairs),
        "ledger_error_defaults": _savings_error(as_shipped),
        "ledger_paid_error": _error(paid, billed),
    }


def _savings_error(pairs: Sequence[tuple[Play, Play]]) -> float:
    said = sum(savings_of(play).total() for _, play in pairs)
    less = sum(
        cost_microusd(direct, WRITES_COST) - cost_microusd(play, WRITES_COST)
        for direct, play in pairs
    )
    return _error(said, less)


def _error(said: float, measured: float) -> float:
    return abs(said - measured) / max(1.0, abs(measured))
