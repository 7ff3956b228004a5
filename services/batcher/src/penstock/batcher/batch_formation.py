"""Which waiting entries make the next batch, and what a batch costs.

Plain values; nothing waits here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.batcher.fair_queue import CRITICAL, WorkItem

FORGETTING_FACTOR = 0.98
"""Weight that older batches keep when a new one is learned from."""


class CostModel:
    """Learns t = base + per_token · rows · longest online: weighted least squares with forgetting,
    both terms kept at or above 0.
    """

    def __init__(self, base_ms: float = 1.0, per_token_ms: float = 0.1) -> None:
        self.base_ms = base_ms
        self.per_token_ms = per_token_ms
        self.samples = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def predict_ms(self, rows: int, longest: int) -> float:
        """Milliseconds of a batch of `rows` padded to `longest` tokens."""
        return self.base_ms + self.per_token_ms * rows * longest

    def learn(self, rows: int, longest: int, took_ms: float) -> None:
        """Learn from a batch that has run."""
        x = float(rows * longest)
        weight, sx, sy, sxx, sxy = (value * FORGETTING_FACTOR for value in self._sums)
        weight, sx, sy, sxx, sxy = weight + 1, sx + x, sy + took_ms, sxx + x * x, sxy + x * took_ms
        self._sums = (weight, sx, sy, sxx, sxy)
        self.samples += 1
        spread = weight * sxx - sx * sx
        if spread > 1e-6 * weight * sxx:
            slope = max(0.0, (weight * sxy - sx * sy) / spread)
            self.per_token_ms, self.base_ms = slope, max(0.0, (sy - slope * sx) / weight)
        elif sxx > 0:
            self.per_token_ms = max(0.0, (sxy - self.base_ms * sx) / sxx)


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of a batch: rows, padded tokens, and milliseconds as the cost model sees them (0:
    none), shorter with an urgent head.
    """

    rows: int
    tokens: int
    batch_ms: float = 0.0
    urgent_batch_ms: float = 0.0


def form_batch(
    candidates: Iterable[WorkItem], cost: CostModel, limits: BatchLimits
) -> list[WorkItem]:
    """The next batch: the first candidate, others of its class that ride along cheaply, then those
    closest to it in length.

    An urgent head takes more of its own class while each adds no more time than it would take
    alone, so that urgent requests do not queue behind each other's lengths. Then rows are added
    while real tokens per millisecond do not fall: one rule for both cost shapes, nearly equal
    lengths where padding costs, nearly everything where a batch costs the same however full. Only
    entries of the first one's model are taken; the first is always served, whatever it costs.
    """
    waiting = list(candidates)
    if not waiting:
        return []
    head = waiting[0]
    batch = _Batch(head, cost, limits)
    rest = [entry for entry in waiting[1:] if entry.model == head.model]
    if head.priority == CRITICAL:
        for entry in rest:
            if entry.priority == CRITICAL and batch.adds_no_more_than_alone(entry):
                batch.add(entry)
    taken = {entry.id for entry in batch.entries}
    longest = _tokens_per_row(head)
    for entry in sorted(rest, key=lambda entry: abs(_tokens_per_row(entry) - longest)):
        if entry.id not in taken and batch.keeps_throughput(entry):
            batch.add(entry)
    return batch.entries


class _Batch:
    """A batch while it is filled."""

    def __init__(self, head: WorkItem, cost: CostModel, limits: BatchLimits) -> None:
        self.entries = [head]
        self._cost = cost
        self._limits = limits
        self._rows, self._tokens, self._longest = head.rows, head.tokens, _tokens_per_row(head)
        cap = (
            limits.urgent_batch_ms
            if head.priority == CRITICAL and limits.urgent_batch_ms
            else limits.batch_ms
        )
        self._cap_ms = max(cap, cost.predict_ms(head.rows, self._longest)) if cap else 0.0

    def add(self, entry: WorkItem) -> None:
        self.entries.append(entry)
        self._rows += entry.rows
        self._tokens += entry.tokens
        self._longest = max(self._longest, _tokens_per_row(entry))

    def _with(self, entry: WorkItem) -> float | None:
        """Milliseconds of the batch with one more entry; None where a bound forbids it."""
        rows, longest = self._rows + entry.rows, max(self._longest, _tokens_per_row(entry))
        if rows > self._limits.rows or rows * longest > self._limits.tokens:
            return None
        then_ms = self._cost.predict_ms(rows, longest)
        return None if self._cap_ms and then_ms > self._cap_ms else then_ms

    def adds_no_more_than_alone(self, entry: WorkItem) -> bool:
        """The entry adds at most the time that it would take alone."""
        then_ms = self._with(entry)
        alone_ms = self._cost.predict_ms(entry.rows, _tokens_per_row(entry))
        return then_ms is not None and then_ms - self._now_ms() <= alone_ms

    def keeps_throughput(self, entry: WorkItem) -> bool:
        """Real tokens per millisecond do not fall."""
        then_ms = self._with(entry)
        return (
            then_ms is not None
            and (self._tokens + entry.tokens) * self._now_ms() >= self._tokens * then_ms
        )

    def _now_ms(self) -> float:
        return self._cost.predict_ms(self._rows, self._longest)


def _tokens_per_row(entry: WorkItem) -> int:
    return max(1, -(-entry.tokens // max(1, entry.rows)))


def padding_waste(batch: Iterable[WorkItem]) -> float:
    """Share of a padded batch's tokens that are padding."""
    members = list(batch)
    padded = sum(entry.rows for entry in members) * max(_tokens_per_row(entry) for entry in members)
    return 1.0 - sum(entry.tokens for entry in members) / padded
