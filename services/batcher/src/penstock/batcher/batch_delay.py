"""Whether waiting for company pays, and how many rows the next batch may have.

Plain values; `now` is an argument, nothing waits here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.batcher.batch_formation import CostModel
from penstock.batcher.fair_queue import WorkItem

OVERRUN_RATIO = 1.25
"""A batch that takes so much longer than `max_batch_ms` halves the rows of the next."""
NEWEST_GAP_WEIGHT = 0.1
"""Weight of the newest gap between arrivals in their mean."""


@dataclass(slots=True)
class ArrivalGaps:
    """The mean gap between arrivals, from which the gain of a wait is expected."""

    gap_s: float = math.inf
    last_s: float = -math.inf

    def note(self, now: float) -> None:
        """Somebody has come."""
        gap_s = now - self.last_s
        self.gap_s = (
            gap_s
            if math.isinf(self.gap_s)
            else self.gap_s + NEWEST_GAP_WEIGHT * (gap_s - self.gap_s)
        )
        self.last_s = now

    def batch_delay_s(
        self, chosen: Sequence[WorkItem], cost: CostModel, most_s: float, now: float
    ) -> float:
        """Seconds to wait for company: at most `most_s` after the head's arrival, never past the
        moment when the tightest of the batch must begin, and only where the fixed cost that company
        would share exceeds the wait.
        """
        latest_s = min(entry.deadline_s for entry in chosen)
        wait_s = min(chosen[0].arrived_s + most_s, latest_s) - now
        expected = (
            0.0
            if math.isinf(self.gap_s) or wait_s <= 0
            else 1.0 - math.exp(-wait_s / max(self.gap_s, 1e-6))
        )
        return wait_s if cost.base_ms * expected > wait_s * 1e3 * (1.0 - expected) else 0.0


@dataclass(slots=True)
class RowLimits:
    """Rows of the next batch by model: halved when one ran over its time, and one more with each
    that did not.
    """

    rows: dict[str, float] = field(default_factory=dict)

    def of(self, model: str, most: int) -> int:
        return min(most, int(self.rows.get(model, most)))

    def ran(self, model: str, rows: int, over: float, most: int) -> None:
        """A batch of `rows` took `over` times what a batch may take."""
        if rows > 1 and over > OVERRUN_RATIO:
            self.rows[model] = max(1.0, rows / 2)
        elif model in self.rows:
            self.rows[model] = min(float(most), self.rows[model] + 1.0)
