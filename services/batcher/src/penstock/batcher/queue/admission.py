"""Which requests may enter the queue of an instance.

A request is refused at once where its deadline cannot be met: waiting would cost it time that it
could use elsewhere, and would cost others the slot. Where the queue is full, room is made by
dropping from the flow that has the most waiting for its weight, which may be the newcomer's own.
"""

from __future__ import annotations

import asyncio
import math

from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.backlog import Backlog
from penstock.batcher.queue.batch_runner import BatchRunner
from penstock.batcher.queue.knobs import ClassLimits, KnobTable, class_limits
from penstock.batcher.queue.metrics import QueueMetrics
from penstock.batcher.queue.next_batch import ArrivalGaps
from penstock.batcher.queue.requests import Answer, PendingRequest, TaskSize, WorkItem
from penstock.rpc.call import NORMAL, Call
from penstock.rpc.errors import deadline_exceeded
from penstock.service.clock import Clock


class Admission:
    """Admits requests to the backlog of one instance."""

    def __init__(
        self,
        backlog: Backlog,
        runner: BatchRunner,
        knobs: KnobTable,
        clock: Clock,
        metrics: QueueMetrics,
    ) -> None:
        self.gaps = ArrivalGaps()
        self._backlog = backlog
        self._runner = runner
        self._profile = runner.profile
        self._knobs = knobs
        self._clock = clock
        self._metrics = metrics

    def admit(
        self,
        task: inference_pb2.Task,
        model: str,
        call: Call,
        size: TaskSize,
        *,
        is_streamed: bool = False,
    ) -> PendingRequest:
        """Add a request to the backlog; it neither waits nor runs yet.

        Raises:
            Fault: DEADLINE_EXCEEDED where it cannot begin in time, RESOURCE_EXHAUSTED where the
                queue is full.
        """
        now = self._clock.monotonic()
        self.gaps.record(now)
        priority = call.priority or NORMAL
        limits = class_limits(self._knobs.for_model(model), priority)
        timeout_at_s = now + limits.timeout_s if limits.timeout_s else math.inf
        begin_by_s = call.deadline_s - self._service_s(model, size, now)
        item = WorkItem(
            self._backlog.next_id(),
            priority,
            call.principal.organisation,
            model,
            size.rows,
            size.tokens,
            now,
            begin_by_s if limits.postpones else min(begin_by_s, timeout_at_s),
            is_streamed,
            call.run_id,
        )
        self._check_capacity(item, limits, now)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = PendingRequest(item, task, call, future)
        if limits.postpones:
            request.postpone_at_s = timeout_at_s
        self._backlog.add(request)
        return request

    def _service_s(self, model: str, size: TaskSize, now: float) -> float:
        """Predicted seconds of the request's own run, which must end before its caller's deadline.

        0 on an idle instance whose learned cost is not trusted, so that the request is tried. A
        cost that was learned too high, perhaps from a first run that loaded the model, would
        otherwise refuse every request that could correct it.
        """
        if self._runner.is_idle and not self._profile.is_cost_trusted(model, now):
            return 0.0
        longest_tokens = -(-size.tokens // size.rows)
        return self._profile.cost(model).predict_ms(size.rows, longest_tokens) / 1e3

    def _check_capacity(self, item: WorkItem, limits: ClassLimits, now: float) -> None:
        """Refuse an item that cannot begin in time; make room for it where its queue is full."""
        wait_ms = self._wait_ms()
        if not item.can_begin_in_time(now, wait_ms):
            self._metrics.record_drop("deadline")
            left_ms = max(0.0, item.deadline_s - now) * 1e3
            raise deadline_exceeded(
                f"not queued: the predicted wait of {wait_ms:.0f} ms exceeds the {left_ms:.0f} ms "
                "within which the request must begin to meet its deadline"
            )
        waiting = self._backlog.waiting
        if not len(waiting):
            return
        in_class = waiting.count(item.model, item.priority, is_streamed=item.is_streamed)
        if limits.max_class_size and in_class >= limits.max_class_size:
            self._backlog.make_room(item, item.priority, wait_ms)
        elif waiting.count(item.model, is_streamed=item.is_streamed) >= limits.max_queue_size:
            self._backlog.make_room(item, None, wait_ms)

    def _wait_ms(self) -> float:
        """Predicted milliseconds until a new request has a slot."""
        if not self._runner.slots:
            return 0.0
        return self._profile.predict_wait_ms(self._backlog.tokens)
