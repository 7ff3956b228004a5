"""The slots of one instance, and a batch from its start to its last answer."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.backlog import Backlog
from penstock.batcher.queue.instance_profile import InstanceProfile
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import Answer, Instance, PendingRequest
from penstock.rpc.errors import Fault, from_item_status
from penstock.service.clock import Clock


class BatchRunner:
    """Runs batches at the instance, settles their requests and learns from them."""

    def __init__(
        self,
        instance: Instance,
        backlog: Backlog,
        profile: InstanceProfile,
        knobs: KnobTable,
        clock: Clock,
    ) -> None:
        self._instance = instance
        self._backlog = backlog
        self.profile = profile
        self._knobs = knobs
        self._clock = clock
        self.slots: set[asyncio.Future[Any]] = set()
        """One future for each batch and stream that runs; it is done when the slot is free."""

    @property
    def has_free_slot(self) -> bool:
        """Whether the instance may be given one more batch or stream."""
        return len(self.slots) < self.profile.limit.limit

    @property
    def is_idle(self) -> bool:
        """Whether a new request can start without waiting: a slot is free and nothing waits."""
        return len(self.slots) < self.profile.limit.limit and not len(self._backlog.waiting)

    async def run_alone(self, request: PendingRequest, reason: str) -> Answer:
        """The answer of a request that runs by itself; its slot and its place in the backlog are
        its caller's.

        Raises:
            Fault: the instance's own, or the instance is lost.
        """
        began_s = self._clock.monotonic()
        try:
            result, load = await self._instance.run_one(request)
        except Fault as fault:
            self.record_fault(fault)
            raise
        self._learn([request], began_s)
        return self._answer(request, result, load, request.item.rows, reason)

    async def run(self, batch: list[PendingRequest], reason: str) -> None:
        """Run a batch and settle each of its requests, by the instance's own result for it, or by
        the fault of the whole batch.
        """
        began_s = self._clock.monotonic()
        rows = sum(request.item.rows for request in batch)
        is_overloaded = False
        try:
            async for position, result, load in self._instance.run(batch[0].item.model, batch):
                request = batch[position]
                if result.status.code:
                    fault = from_item_status(result.status)
                    is_overloaded = is_overloaded or fault.consequences.overload
                    self._backlog.settle(request.item.id, fault)
                    continue
                answer = self._answer(request, result.result, load, rows, reason)
                self._backlog.settle(request.item.id, answer)
        except Fault as fault:
            self.record_fault(fault)
            for request in batch:
                self._backlog.settle(request.item.id, fault)
            return
        finally:
            self._backlog.fail_unanswered(batch)
        if is_overloaded:
            # The refused requests took hardly any time: the batch says nothing about its cost.
            self.profile.limit.record_overload()
        else:
            self._learn(batch, began_s)

    def _answer(
        self,
        request: PendingRequest,
        result: inference_pb2.TaskResult,
        load: common_pb2.LoadReport,
        rows: int,
        reason: str,
    ) -> Answer:
        receipt = common_pb2.BatchReceipt(
            queued_ms=request.queued_ms, batch_size=rows, release_reason=reason
        )
        return Answer(result, receipt, self._backlog.load_report(load))

    def record_fault(self, fault: Fault) -> None:
        """Lower the concurrency limit where a fault of the instance means overload."""
        if fault.consequences.overload:
            self.profile.limit.record_overload()

    def _learn(self, batch: list[PendingRequest], began_s: float) -> None:
        now = self._clock.monotonic()
        items = [request.item for request in batch]
        knobs = self._knobs.for_model(items[0].model)
        took_ms = (now - began_s) * 1e3
        self.profile.record_batch(items, took_ms, len(self.slots), knobs, now)

    async def hold_stream(self, request: PendingRequest) -> None:
        """Give a stream its turn, and keep the slot until its caller has left."""
        if request.future.done() or request.stream_ended is None:
            return
        empty = Answer(inference_pb2.TaskResult(), request.stream_receipt, common_pb2.LoadReport())
        request.future.set_result(empty)
        await request.stream_ended.wait()
