"""Which waiting items make the next batch.

The first item in serving order, the head, is always taken, whatever it costs. Others of its model
join it by two rules:

1. An urgent head takes urgent items while each adds at most the time that it would take alone.
   Urgent requests then do not queue behind each other's lengths.
2. The items closest to the head in length join while real tokens per millisecond do not fall. One
   rule serves both kinds of hardware: where padding costs, only nearly equal lengths join; where a
   batch costs the same however full it is, nearly everything does.

Plain values; nothing waits here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.batcher.queue.instance_profile import CostModel
from penstock.batcher.queue.requests import CRITICAL, WorkItem
from penstock.service.purity import pure


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of a batch: rows, padded tokens, and predicted milliseconds (0: none), of which a
    batch with an urgent head has its own.
    """

    max_rows: int
    max_tokens: int
    max_ms: float = 0.0
    max_urgent_ms: float = 0.0

    def max_ms_for(self, priority: int) -> float:
        """Predicted milliseconds that a batch with a head of this class may take; 0: any."""
        if priority == CRITICAL and self.max_urgent_ms:
            return self.max_urgent_ms
        return self.max_ms


@pure
def form_batch(
    candidates: Iterable[WorkItem], cost: CostModel, limits: BatchLimits
) -> list[WorkItem]:
    """The items of the next batch, the head first; empty where there are no candidates.

    Args:
        candidates: waiting items in serving order; streamed ones and other models' are passed over.
    """
    waiting = list(candidates)
    if not waiting:
        return []
    head = waiting[0]
    batch = _GrowingBatch(head, cost, limits)
    others = [item for item in waiting[1:] if item.model == head.model and not item.is_streamed]
    if head.priority == CRITICAL:
        for item in others:
            if item.priority == CRITICAL and batch.adds_no_more_than_alone(item):
                batch.add(item)
    taken = {item.id for item in batch.items}
    head_length = head.tokens_per_row
    for item in sorted(others, key=lambda item: abs(item.tokens_per_row - head_length)):
        if item.id not in taken and batch.keeps_throughput(item):
            batch.add(item)
    return batch.items


class _GrowingBatch:
    """A batch while it is filled, with what it is predicted to cost."""

    def __init__(self, head: WorkItem, cost: CostModel, limits: BatchLimits) -> None:
        self.items = [head]
        self._cost = cost
        self._limits = limits
        self._rows = head.rows
        self._tokens = head.tokens
        self._longest = head.tokens_per_row
        max_ms = limits.max_ms_for(head.priority)
        self._max_ms = max(max_ms, self._predict_ms()) if max_ms else 0.0

    def add(self, item: WorkItem) -> None:
        self.items.append(item)
        self._rows += item.rows
        self._tokens += item.tokens
        self._longest = max(self._longest, item.tokens_per_row)

    def adds_no_more_than_alone(self, item: WorkItem) -> bool:
        """Whether the item prolongs the batch by at most the time that it would take alone."""
        with_ms = self._predict_ms_with(item)
        alone_ms = self._cost.predict_ms(item.rows, item.tokens_per_row)
        return with_ms is not None and with_ms - self._predict_ms() <= alone_ms

    def keeps_throughput(self, item: WorkItem) -> bool:
        """Whether real tokens per millisecond do not fall with the item."""
        with_ms = self._predict_ms_with(item)
        if with_ms is None:
            return False
        return (self._tokens + item.tokens) * self._predict_ms() >= self._tokens * with_ms

    def _predict_ms(self) -> float:
        return self._cost.predict_ms(self._rows, self._longest)

    def _predict_ms_with(self, item: WorkItem) -> float | None:
        """Milliseconds of the batch with the item; None where a limit forbids it."""
        rows = self._rows + item.rows
        longest = max(self._longest, item.tokens_per_row)
        if rows > self._limits.max_rows or rows * longest > self._limits.max_tokens:
            return None
        with_ms = self._cost.predict_ms(rows, longest)
        return None if self._max_ms and with_ms > self._max_ms else with_ms


@pure
def padding_waste(batch: Iterable[WorkItem]) -> float:
    """Share of a padded batch's tokens that are padding, 0 to 1."""
    items = list(batch)
    padded = sum(item.rows for item in items) * max(item.tokens_per_row for item in items)
    return 1.0 - sum(item.tokens for item in items) / padded
