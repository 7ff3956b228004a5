"""Do the receipts say what was saved? Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.bench.agent_replay.findings.costs import cost_microusd
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

    `ledger_error` compares the savings with what the direct calls cost more. `ledger_error_list`
    compares them with what the direct calls would have cost more if the provider had no prefix
    cache: receipts count what it saves as saved, though direct callers have it as well.
    `ledger_paid_error` compares what receipts say was paid with the provider's bill.

    Args:
        pairs: the direct play of each workload, and that through Penstock.
    """
    saved = sum(savings_of(play).total() for _, play in pairs)
    direct = sum(cost_microusd(play, WRITES_COST) for play, _ in pairs)
    at_list = sum(
        WRITES_COST.list_microusd(note.tokens) for play, _ in pairs for note in play.noted
    )
    billed = sum(cost_microusd(play, WRITES_COST) for _, play in pairs)
    paid = sum(each.paid_microusd for _, play in pairs for each in play.answered)
    return {
        "ledger_error": _error(saved, direct - billed),
        "ledger_error_list": _error(saved, at_list - billed),
        "ledger_paid_error": _error(paid, billed),
    }


def _error(said: float, measured: float) -> float:
    return abs(said - measured) / max(1.0, abs(measured))
