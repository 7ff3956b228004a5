"""The queue before one instance: admits requests and starts batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, assert_never

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.admission import Admission
from penstock.batcher.queue.backlog import Backlog, instance_leaving
from penstock.batcher.queue.batch_formation import padding_waste
from penstock.batcher.queue.batch_runner import BatchRunner
from penstock.batcher.queue.fair_queue import FairQueue
from penstock.batcher.queue.instance_profile import ConcurrencyLimit, CostModel, InstanceProfile
from penstock.batcher.queue.knobs import KnobTable, class_weights
from penstock.batcher.queue.metrics import NO_METRICS, QueueMetrics
from penstock.batcher.queue.next_batch import (
    NothingWaits,
    ReleaseReason,
    StartBatch,
    WaitForMore,
    next_batch,
)
from penstock.batcher.queue.requests import (
    Answer,
    Instance,
    PendingRequest,
    RunningBatch,
    TaskSize,
    WorkItem,
)
from penstock.batcher.settings import KnobsSection
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.service.clock import Clock


class InstanceQueue:
    """One instance's queue. Owner: whoever made it must `close` it."""

    def __init__(
        self,
        instance: Instance,
        limit: ConcurrencyLimit,
        knobs: KnobTable,
        clock: Clock,
        metrics: QueueMetrics = NO_METRICS,
    ) -> None:
        """Make an empty queue.

        Args:
            limit: how many batches and streams may run at once.
            knobs: read for each request and each batch, so that changes count at once.
        """
        self._knobs = knobs
        self._clock = clock
        self._metrics = metrics
        self._backlog = Backlog(metrics)
        self._profile = InstanceProfile(limit)
        self._runner = BatchRunner(instance, self._backlog, self._profile, knobs, clock)
        self._admission = Admission(self._backlog, self._runner, knobs, clock, metrics)
        self._weights_of: KnobsSection | None = None
        self._delay: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def running(self) -> int:
        """Batches and streams that run now."""
        return len(self._runner.slots)

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._backlog)

    @property
    def in_flight_tokens(self) -> int:
        """Tokens of the requests that wait or run."""
        return sum(self._backlog.tokens.values())

    @property
    def waiting(self) -> FairQueue:
        """What waits, for display."""
        return self._backlog.waiting

    @property
    def limit(self) -> ConcurrencyLimit:
        """How many batches and streams may run at once."""
        return self._profile.limit

    @property
    def costs(self) -> Mapping[str, CostModel]:
        """What batches cost, by model, for display."""
        return self._profile.costs

    async def submit(
        self, task: inference_pb2.Task, model: str, call: Call, size: TaskSize
    ) -> Answer:
        """Wait for a turn and for the answer.

        Raises:
            Fault: DEADLINE_EXCEEDED where it cannot be served in time, RESOURCE_EXHAUSTED where the
                queue is full, UNAVAILABLE where the instance is lost, or the instance's own fault
                for this request.
        """
        self._check_open()
        request = self._admission.admit(task, model, call, size)
        if self._runner.is_idle and not self._knobs.for_model(model).max_queue_delay_microseconds:
            with self._own_slot(request):
                return await self._runner.run_alone(request, "instance_free")
        self._wait(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            if request.batch is not None:
                request.batch.cancel_if_abandoned()
            raise
        finally:
            self._backlog.forget(request.item.id)

    @contextlib.asynccontextmanager
    async def stream_slot(
        self, task: inference_pb2.Task, model: str, call: Call, size: TaskSize
    ) -> AsyncIterator[common_pb2.BatchReceipt]:
        """Wait for a slot of the instance and hold it while the block runs.

        A Fault that leaves the block and means overload lowers a learned concurrency limit.

        Raises:
            Fault: as `submit`, before the block is entered.
        """
        self._check_open()
        request = self._admission.admit(task, model, call, size, is_streamed=True)
        request.stream_ended = ended = asyncio.Event()
        try:
            if self._runner.is_idle:
                with self._own_slot(request):
                    yield request.stream_receipt
            else:
                self._wait(request)
                yield (await request.future).receipt
        except Fault as fault:
            if request.started_s is not None:
                self._runner.record_fault(fault)
            raise
        finally:
            ended.set()
            self._backlog.forget(request.item.id)

    def record_first_token(self, delay_ms: float) -> None:
        """Record that a stream's first piece came after `delay_ms`."""
        self._profile.limit.record_delay(delay_ms, self.running)

    def load_report(self, load: common_pb2.LoadReport) -> common_pb2.LoadReport:
        """The instance's load with what waits and runs through this queue."""
        return self._backlog.load_report(load)

    def close(self) -> int:
        """Admit no more, return what waits as retryable, and let what runs finish.

        Returns how many requests were returned.
        """
        self._is_closed = True
        if self._delay is not None:
            self._delay.cancel()
        return self._backlog.fail_waiting()

    async def wait_idle(self) -> None:
        """Wait until nothing runs."""
        while self._runner.slots:
            await asyncio.wait(list(self._runner.slots))

    @contextlib.contextmanager
    def _own_slot(self, request: PendingRequest) -> Iterator[None]:
        """A slot of an idle instance for the block, in the caller's own task: no queue, no task and
        no wake-up lie between caller and instance.

        However the block ends, the slot is given back and starts what waits by then.
        """
        slot = request.future
        now = request.started_s = request.item.arrived_s
        self._backlog.waiting.observe_wait(request.item, now)
        self._runner.slots.add(slot)
        try:
            yield
        finally:
            slot.cancel()
            self._backlog.forget(request.item.id)
            self._free_slot(slot)

    def _check_open(self) -> None:
        if self._is_closed:
            raise instance_leaving()

    def _wait(self, request: PendingRequest) -> None:
        self._backlog.wait(request)
        self._start_batches()

    def _start_batches(self) -> None:
        """Start batches while the instance has a free slot and requests wait.

        Called on every arrival and whenever a slot is freed: an idle queue adds no wait.
        """
        waiting = self._backlog.waiting
        while self._runner.has_free_slot and len(waiting):
            now = self._clock.monotonic()
            self._backlog.drop_expired(now)
            self._apply_weights()
            match next_batch(waiting, self._profile, self._admission.gaps, self._knobs, now):
                case StartBatch(items, reason):
                    self._start(items, reason, now)
                case WaitForMore(seconds):
                    self._decide_again_in(seconds)
                    return
                case NothingWaits():
                    return
                case unknown:
                    assert_never(unknown)

    def _apply_weights(self) -> None:
        """Give the fair queue the weights in force, where they have changed."""
        if self._weights_of is not self._knobs.default:
            self._weights_of = self._knobs.default
            self._backlog.waiting.configure(
                class_weights(self._weights_of), self._weights_of.strict_priority
            )

    def _decide_again_in(self, seconds: float) -> None:
        if self._delay is not None:
            self._delay.cancel()
        self._delay = asyncio.get_running_loop().call_later(seconds, self._start_batches)

    def _start(self, items: Sequence[WorkItem], reason: ReleaseReason, now: float) -> None:
        """Take the items out of the queue and run them as one batch, or the one as a stream."""
        waiting = self._backlog.waiting
        batch = self._backlog.requests_of(items)
        for request in batch:
            waiting.take(request.item)
            waiting.observe_wait(request.item, now)
            request.started_s = now
        if len(batch) > 1:
            self._metrics.record_padding(padding_waste(items))
        is_streamed = items[0].is_streamed
        run = self._runner.hold_stream(batch[0]) if is_streamed else self._runner.run(batch, reason)
        task = asyncio.get_running_loop().create_task(run)
        running = RunningBatch(task, batch)
        for request in batch:
            request.batch = running
        self._runner.slots.add(task)
        task.add_done_callback(self._free_slot)

    def _free_slot(self, slot: asyncio.Future[Any]) -> None:
        self._runner.slots.discard(slot)
        if not self._is_closed:
            self._start_batches()
