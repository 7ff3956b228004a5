"""Whether to keep a batch open for requests that are likely to come (Triton's queue delay).

A batch has a fixed cost that all its rows share. Waiting for one more request saves that cost once
if the request comes, and delays the whole batch for nothing if it does not. With arrivals taken as
a Poisson process of the observed mean gap, one comes within a wait w with probability
p = 1 − exp(−w / gap); waiting pays where base · p > w · (1 − p).

Plain values: `now` is an argument and nothing waits here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.batcher.cost_model import CostModel
from penstock.batcher.work_item import WorkItem
from penstock.service.purity import pure

NEWEST_GAP_WEIGHT = 0.1
"""Weight of the newest gap in the exponentially weighted mean."""
MIN_GAP_S = 1e-6


@dataclass(slots=True)
class ArrivalGaps:
    """The mean gap between arrivals; infinite before the second one."""

    mean_s: float = math.inf
    last_s: float = -math.inf

    def record(self, now: float) -> None:
        """Record an arrival."""
        gap_s = now - self.last_s
        self.last_s = now
        if math.isinf(self.mean_s):
            self.mean_s = gap_s
        else:
            self.mean_s += NEWEST_GAP_WEIGHT * (gap_s - self.mean_s)


@pure
def batch_delay_s(
    batch: Sequence[WorkItem], cost: CostModel, gaps: ArrivalGaps, max_delay_s: float, now: float
) -> float:
    """Seconds to keep the batch open; 0 where waiting does not pay.

    A wait ends at most `max_delay_s` after the arrival of the batch's first item, and never after
    the latest moment to begin any of its items.
    """
    latest_s = min(item.deadline_s for item in batch)
    wait_s = min(batch[0].arrived_s + max_delay_s, latest_s) - now
    if wait_s <= 0 or math.isinf(gaps.mean_s):
        return 0.0
    arrival_probability = 1.0 - math.exp(-wait_s / max(gaps.mean_s, MIN_GAP_S))
    saved_ms = cost.base_ms * arrival_probability
    lost_ms = wait_s * 1e3 * (1.0 - arrival_probability)
    return wait_s if saved_ms > lost_ms else 0.0
