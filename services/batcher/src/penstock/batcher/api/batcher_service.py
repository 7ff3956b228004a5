"""The gRPC service of the batcher: each RPC finds the queue of its instance and waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.api.metrics import BatcherMetrics
from penstock.batcher.instance import PeerInstance
from penstock.batcher.queue.fair_queue import DEFAULT_WEIGHTS
from penstock.batcher.queue.instance_profile import INITIAL_LIMIT, FixedLimit, GradientLimit
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import KnobTable, to_proto
from penstock.batcher.queue.requests import Answer
from penstock.batcher.settings import BatchingSection
from penstock.batcher.split_merge import gather_or_cancel, merge, task_size
from penstock.otel import attributes as names
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, unavailable
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.rpc.spans import Own, span_of
from penstock.service.clock import Clock
from penstock.tasks.kinds import kind_of


@dataclass(frozen=True)
class _AttachedInstance:
    """An instance that this batcher may call, and its queue."""

    address: str
    peer: Peer
    queue: InstanceQueue

    async def close(self) -> int:
        """Return what waits, finish what runs, close the connection; returns the number of
        requests that were returned.
        """
        returned = self.queue.close()
        await self.queue.wait_idle()
        await self.peer.close()
        return returned


class BatcherServicer:
    """penstock.api.batcher.v1.BatcherService. Owns the queues and the peers to their instances."""

    def __init__(
        self,
        section: BatchingSection,
        dial: Callable[[str], Peer],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._knobs = KnobTable(section)
        self._dial = dial
        self._clock = clock
        self._telemetry = telemetry
        self._instances: dict[str, _AttachedInstance] = {}
        self._metrics = BatcherMetrics(telemetry, clock, self._queues)

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        queue = self._attached(request.instance_id).queue
        instance: Own = {names.INSTANCE: request.instance_id}
        with span_of(self._telemetry, "queue", call, instance) as span:
            answer = await self._submit(queue, request, span.call)
            span.set(names.BATCH_SIZE, answer.receipt.batch_size)
            span.set(names.QUEUED_MS, answer.receipt.queued_ms)
        self._metrics.record_answer(answer.receipt)
        return pb.ComputeResponse(result=answer.result, batch=answer.receipt, load=answer.load)

    async def _submit(self, queue: InstanceQueue, request: pb.ComputeRequest, call: Call) -> Answer:
        """The answer of a task, computed in parts where it has more rows than a batch."""
        max_rows = self._knobs.for_model(request.model).max_batch_size
        parts = kind_of(request.task).split(request.task, max_rows)
        if len(parts) == 1:
            size = task_size(request.task, request.estimated_tokens)
            return await queue.submit(request.task, request.model, call, size)
        submitted = [
            queue.submit(part, request.model, call, task_size(part, estimated_tokens=0))
            for part in parts
        ]
        return merge(request.task, await gather_or_cancel(submitted))

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        instance = self._attached(request.instance_id)
        message = inference_pb2.ComputeStreamRequest(model=request.model, task=request.task)
        size = task_size(request.task, request.estimated_tokens)
        async with instance.queue.stream_slot(request.task, request.model, call, size) as receipt:
            began_s = self._clock.monotonic()
            is_first = True
            async for part in instance.peer.stream("ComputeStream", message, call):
                if is_first:
                    delay_ms = (self._clock.monotonic() - began_s) * 1e3
                    instance.queue.record_first_token(delay_ms)
                    is_first = False
                response = pb.ComputeStreamResponse(chunk=part.chunk)
                if part.HasField("result"):
                    response.result.CopyFrom(part.result)
                    response.batch.CopyFrom(receipt)
                    response.load.CopyFrom(instance.queue.load_report(part.load))
                yield response

    async def AttachInstance(
        self, request: pb.AttachInstanceRequest, call: Call
    ) -> pb.AttachInstanceResponse:
        if not request.instance_id:
            raise invalid("instance_id", "is empty")
        if not request.address:
            raise invalid("address", "is empty")
        attached = self._instances.get(request.instance_id)
        if attached is None or attached.address != request.address:
            await self._detach(request.instance_id)
            self._instances[request.instance_id] = self._attach(request)
        return pb.AttachInstanceResponse(queue=self._queue_row(request.instance_id))

    def _attach(self, request: pb.AttachInstanceRequest) -> _AttachedInstance:
        limit = (
            GradientLimit(request.concurrency or INITIAL_LIMIT)
            if request.adaptive_concurrency
            else FixedLimit(request.concurrency)
        )
        peer = self._dial(request.address)
        instance = PeerInstance(peer, self._clock)
        queue = InstanceQueue(instance, limit, self._knobs, self._clock, self._metrics)
        return _AttachedInstance(request.address, peer, queue)

    async def DetachInstance(
        self, request: pb.DetachInstanceRequest, call: Call
    ) -> pb.DetachInstanceResponse:
        return pb.DetachInstanceResponse(returned=await self._detach(request.instance_id))

    async def ListQueues(self, request: pb.ListQueuesRequest, call: Call) -> pb.ListQueuesResponse:
        rows = [self._queue_row(instance_id) for instance_id in self._instances]
        return pb.ListQueuesResponse(queues=rows, knobs=self._knobs.to_proto())

    async def Configure(self, request: pb.ConfigureRequest, call: Call) -> pb.ConfigureResponse:
        knobs = self._knobs.change(request.model, request.knobs)
        return pb.ConfigureResponse(knobs=to_proto(knobs))

    def reload(self, section: BatchingSection) -> None:
        """Put the file's knobs in force, for requests that wait already too; what `Configure`
        changed before is gone.
        """
        self._knobs.replace(section)

    async def close(self) -> None:
        """Return what waits, finish what runs, close the connections."""
        for instance_id in list(self._instances):
            await self._detach(instance_id)

    def _queues(self) -> list[InstanceQueue]:
        return [instance.queue for instance in self._instances.values()]

    def _attached(self, instance_id: str) -> _AttachedInstance:
        instance = self._instances.get(instance_id)
        if instance is None:
            raise unavailable(
                f"instance {instance_id!r} is not attached to this batcher; attach it with "
                "AttachInstance",
                reason=Reason.NOT_ATTACHED,
            )
        return instance

    async def _detach(self, instance_id: str) -> int:
        instance = self._instances.pop(instance_id, None)
        return 0 if instance is None else await instance.close()

    def _queue_row(self, instance_id: str) -> pb.Queue:
        instance = self._instances[instance_id]
        queue, now = instance.queue, self._clock.monotonic()
        row = pb.Queue(
            instance_id=instance_id,
            address=instance.address,
            concurrency=queue.limit.limit,
            running=queue.running,
        )
        for priority in sorted(DEFAULT_WEIGHTS, reverse=True):
            oldest_s = queue.waiting.oldest_arrival_s(priority)
            age_ms = 0 if oldest_s is None else round((now - oldest_s) * 1e3)
            depth = queue.waiting.rows(priority)
            row.classes.add(priority=priority, depth=depth, oldest_age_ms=age_ms)
        for model, cost in queue.costs.items():
            row.costs[model].base_ms = cost.base_ms
            row.costs[model].per_token_ms = cost.per_token_ms
            row.costs[model].samples = cost.samples
        return row
