"""Which waiting entries make the next batch, and what a batch costs. Plain values; nothing waits here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.batcher.policy import Entry

FORGET = 0.98
"""Weight that older batches keep when a new one is learned from."""


class CostModel:
    """Learns t = base + per_token · rows · longest online: weighted least squares with forgetting, both terms kept at or above 0."""

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
        weight, sx, sy, sxx, sxy = (value * FORGET for value in self._sums)
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
class FormerLimits:
    """Bounds of a batch: rows, padded tokens, and milliseconds as the cost model sees them (0: none)."""

    rows: int
    tokens: int
    batch_ms: float = 0.0


def form(candidates: Iterable[Entry], cost: CostModel, limits: FormerLimits) -> list[Entry]:
    """The next batch: the first candidate, then those closest to it in length while real tokens per millisecond do not fall.

    One rule for both cost shapes: where padding costs, nearly equal lengths; where a batch costs the same however full, nearly everything.
    Only entries of the first one's model are taken. The first is always served, whatever it costs.
    """
    waiting = list(candidates)
    if not waiting:
        return []
    head = waiting[0]
    batch, rows, tokens, longest = [head], head.rows, head.tokens, _row_length(head)
    rest = [entry for entry in waiting[1:] if entry.model == head.model]
    for entry in sorted(rest, key=lambda entry: abs(_row_length(entry) - longest)):
        new_rows, new_longest = rows + entry.rows, max(longest, _row_length(entry))
        if new_rows > limits.rows or new_rows * new_longest > limits.tokens:
            continue
        now_ms, then_ms = cost.predict_ms(rows, longest), cost.predict_ms(new_rows, new_longest)
        if limits.batch_ms and then_ms > max(limits.batch_ms, cost.predict_ms(head.rows, _row_length(head))):
            continue
        if (tokens + entry.tokens) * now_ms < tokens * then_ms:
            continue
        batch.append(entry)
        rows, tokens, longest = new_rows, tokens + entry.tokens, new_longest
    return batch


def _row_length(entry: Entry) -> int:
    return max(1, -(-entry.tokens // max(1, entry.rows)))


def padding_waste(batch: Iterable[Entry]) -> float:
    """Share of a padded batch's tokens that are padding."""
    members = list(batch)
    padded = sum(entry.rows for entry in members) * max(_row_length(entry) for entry in members)
    return 1.0 - sum(entry.tokens for entry in members) / padded
