"""The requests of one instance that are admitted and not settled, waiting or running.

The one place that settles a request, by its answer or a fault. A settled request is removed, so a
second attempt to settle it does nothing: each request ends exactly once.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.api.common.v1 import common_pb2
from penstock.batcher.queue.fair_queue import FairQueue
from penstock.batcher.queue.metrics import QueueMetrics
from penstock.batcher.queue.requests import Answer, PendingRequest, WorkItem
from penstock.rpc.errors import Fault, deadline_exceeded, exhausted, unavailable
from penstock.rpc.reasons import Reason

MIN_RETRY_AFTER_S = 0.05


class Backlog:
    """Owns every admitted request until it is settled or forgotten."""

    def __init__(self, metrics: QueueMetrics) -> None:
        self.waiting = FairQueue()
        self._metrics = metrics
        self._requests: dict[int, PendingRequest] = {}
        self._ids = itertools.count(1)
        self._tokens: Counter[str] = Counter()
        self._postponable = 0

    def __len__(self) -> int:
        """Requests that wait or run."""
        return len(self._requests)

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that wait or run, by model."""
        return self._tokens

    def next_id(self) -> int:
        """An identifier for a new item."""
        return next(self._ids)

    def add(self, request: PendingRequest) -> None:
        """Admit a request. It waits once its item is pushed to `waiting`."""
        self._requests[request.item.id] = request
        self._tokens[request.item.model] += request.item.tokens
        self._postponable += math.isfinite(request.postpone_at_s)

    def wait(self, request: PendingRequest) -> None:
        """Let an admitted request wait for its turn."""
        self.waiting.push(request.item)

    def requests_of(self, items: Iterable[WorkItem]) -> list[PendingRequest]:
        """The admitted requests with these items."""
        return [self._requests[item.id] for item in items]

    def forget(self, item_id: int) -> PendingRequest | None:
        """Remove a request without an outcome; None where it has been removed before."""
        request = self._requests.pop(item_id, None)
        if request is not None:
            self._discount(request.item)
            self._postponable -= math.isfinite(request.postpone_at_s)
            self.waiting.remove(item_id)
        return request

    def _discount(self, item: WorkItem) -> None:
        left = self._tokens[item.model] - item.tokens
        if left:
            self._tokens[item.model] = left
        else:
            del self._tokens[item.model]

    def settle(self, item_id: int, outcome: Answer | Fault) -> None:
        """End a request with its answer or a fault; nothing where it has ended already."""
        request = self.forget(item_id)
        if request is None or request.future.done():
            return
        if isinstance(outcome, Fault):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)

    def fail_unanswered(self, batch: Iterable[PendingRequest]) -> None:
        """End those of a finished batch that the instance gave no result for."""
        for request in batch:
            if request.item.id in self._requests:
                fault = unavailable(
                    "the instance ended the batch without a result for this request; retry",
                    reason=Reason.NO_ANSWER,
                )
                self.settle(request.item.id, fault)

    def fail_waiting(self) -> int:
        """End all that waits as retryable elsewhere; returns how many there were."""
        count = len(self.waiting)
        for item in list(self.waiting.in_order(count)) if count else ():
            self.settle(item.id, instance_leaving())
        return count

    def drop_expired(self, now: float) -> None:
        """End what can no longer begin in time, and postpone what has passed its queue timeout."""
        for item in self.waiting.pop_expired(now):
            self._metrics.record_drop("timeout")
            self.settle(item.id, deadline_exceeded("deadline expired in the batcher queue"))
        if self._postponable:
            self._postpone_overdue(now)

    def _postpone_overdue(self, now: float) -> None:
        overdue = [
            request
            for request in self._requests.values()
            if request.postpone_at_s <= now and request.started_s is None
        ]
        for request in overdue:
            request.postpone_at_s = math.inf
            self._postponable -= 1
            self.waiting.postpone(request.item.id)

    def make_room(self, newcomer: WorkItem, priority: int | None, wait_ms: float) -> None:
        """Drop one waiting request for the newcomer, from the flow that has the most waiting tokens
        for its weight.

        Args:
            newcomer: the item that finds its queue full.
            priority: the class whose own limit is reached; None where it is the model's.
            wait_ms: predicted wait of a new request, for the retry hint.

        Raises:
            Fault: RESOURCE_EXHAUSTED where the newcomer's own flow is the longest, so that the
                newcomer is the one to be refused.
        """
        self._metrics.record_drop("queue_full")
        full = exhausted(
            f"the queue of model {newcomer.model!r} is full; retry later or send less",
            reason=Reason.QUEUE_FULL,
            retry_after_s=max(MIN_RETRY_AFTER_S, wait_ms / 1e3),
        )
        dropped = self.waiting.drop_candidate(newcomer, priority)
        if dropped is None or _flow(dropped) == _flow(newcomer):
            raise full
        self.settle(dropped.id, full)

    def load_report(self, load: common_pb2.LoadReport) -> common_pb2.LoadReport:
        """The instance's load with all that is in flight through this queue in place of what the
        instance sees, less the request that is being answered.
        """
        report = common_pb2.LoadReport()
        report.CopyFrom(load)
        report.in_flight = max(0, len(self._requests) - 1)
        report.queued = len(self.waiting)
        return report


def instance_leaving() -> Fault:
    """The fault of requests that a detached instance does not serve any more."""
    return unavailable(
        "the instance is being detached; retry on another instance", reason=Reason.INSTANCE_LEAVING
    )


def _flow(item: WorkItem) -> tuple[int, str]:
    return item.priority, item.tenant
