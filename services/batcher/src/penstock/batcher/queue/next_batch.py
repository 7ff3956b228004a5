"""The decision what an instance with a free slot runs next.

A pure function of what waits, what is learned and what is configured; `instance_queue` acts on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.batcher.batch_delay import ArrivalGaps, batch_delay_s
from penstock.batcher.batch_formation import BatchLimits, form_batch
from penstock.batcher.fair_queue import FairQueue
from penstock.batcher.knobs import KnobTable
from penstock.batcher.queue.instance_profile import InstanceProfile
from penstock.batcher.settings import KnobsSection
from penstock.batcher.work_item import CRITICAL, WorkItem
from penstock.service.purity import pure

ReleaseReason = Literal["full", "delay", "instance_free"]
"""Why a batch was closed, for its receipt: it had all the rows that it may have, or a preferred
number; it had been kept open for more; the instance was free.
"""


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
