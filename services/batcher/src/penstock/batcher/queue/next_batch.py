"""The decision what an instance with a free slot runs next, or to wait for more requests.

A pure function of what waits, what is learned and what is configured; `instance_queue` acts on it.

Waiting (Triton's queue delay): a batch has a fixed cost that all its rows share. Waiting for one
more request saves that cost once if the request comes, and delays the whole batch for nothing if it
does not. With arrivals taken as a Poisson process of the observed mean gap, one comes within a wait
w with probability p = 1 − exp(−w / gap); waiting pays where base · p > w · (1 − p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.batcher.queue.batch_formation import BatchLimits, form_batch
from penstock.batcher.queue.fair_queue import FairQueue
from penstock.batcher.queue.instance_profile import CostModel, InstanceProfile
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import CRITICAL, WorkItem
from penstock.batcher.settings import KnobsSection
from penstock.service.purity import pure

ReleaseReason = Literal["full", "delay", "instance_free"]
"""Why a batch was closed, for its receipt: it had all the rows that it may have, or a preferred
number; it had been kept open for more; the instance was free.
"""
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


@dataclass(frozen=True, slots=True)
class StartBatch:
    """Run these items now."""

    items: Sequence[WorkItem]
    reason: ReleaseReason


@dataclass(frozen=True, slots=True)
class WaitForMore:
    """Decide again after so many seconds, or when a request arrives."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NothingWaits:
    """There is nothing to run."""


Decision = StartBatch | WaitForMore | NothingWaits


@pure
def next_batch(
    waiting: FairQueue, profile: InstanceProfile, gaps: ArrivalGaps, knobs: KnobTable, now: float
) -> Decision:
    """What to run next; a stream runs alone."""
    head = next(waiting.in_order(1), None)
    if head is None:
        return NothingWaits()
    if head.is_streamed:
        return StartBatch([head], "instance_free")
    model_knobs = knobs.for_model(head.model)
    max_rows = profile.row_limits.rows_for(head.model, model_knobs.max_batch_size)
    items = _fill(head, waiting, profile, model_knobs, max_rows)
    rows = sum(item.rows for item in items)
    if rows >= max_rows or rows in model_knobs.preferred_batch_size:
        return StartBatch(items, "full")
    max_delay_s = model_knobs.max_queue_delay_microseconds / 1e6
    if not max_delay_s:
        return StartBatch(items, "instance_free")
    if not waiting.rows(CRITICAL):
        cost = profile.cost(head.model)
        delay_s = batch_delay_s(items, cost, gaps, max_delay_s, now)
        if delay_s > 0:
            return WaitForMore(delay_s)
    return StartBatch(items, "delay" if now > head.arrived_s else "instance_free")


def _fill(
    head: WorkItem,
    waiting: FairQueue,
    profile: InstanceProfile,
    knobs: KnobsSection,
    max_rows: int,
) -> list[WorkItem]:
    """The batch of the head with what joins it."""
    if len(waiting) == 1:
        return [head]
    limits = BatchLimits(
        max_rows, knobs.max_batch_tokens, knobs.max_batch_ms, knobs.max_urgent_batch_ms
    )
    return form_batch(waiting.in_order(knobs.look_ahead), profile.cost(head.model), limits)
