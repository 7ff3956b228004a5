"""The door: each RPC is proto in, the queue of its instance, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher import policy
from penstock.batcher.adapters import PeerInstance
from penstock.batcher.config import BatchingSection, KnobsSection
from penstock.batcher.queue import InstanceQueue, Served
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import invalid, unavailable
from penstock.core.hop import Peer
from penstock.core.telemetry import Telemetry

BYTES_A_TOKEN = 4


class BatcherServicer:
    """penstock.api.batcher.v1.BatcherService. Owns the queues and the peers to their instances."""

    def __init__(
        self, section: BatchingSection, dial: Callable[[str], Peer], clock: Clock, telemetry: Telemetry
    ) -> None:
        self._knobs: dict[str, KnobsSection] = {}
        self.reload(section)
        self._dial = dial
        self._clock = clock
        self._telemetry = telemetry
        self._queues: dict[str, InstanceQueue] = {}
        self._addresses: dict[str, str] = {}
        self._peers: dict[str, Peer] = {}
        self._queue_wait = telemetry.histogram(
            "penstock.batcher.queue_wait", "ms", "Time that members waited in the queue"
        )
        self._batch_size = telemetry.histogram(
            "penstock.batcher.batch_size", "{row}", "Rows of the batch that served a member"
        )

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        queue = self._queue(request.instance_id)
        size = _size(request.task, request.estimated_tokens)
        with self._telemetry.span("queue", call, attributes={"penstock.instance.id": request.instance_id}) as span:
            served = await queue.submit(request.task, request.model, span.call, size)
            span.set("penstock.batch.size", served.receipt.batch_size)
            span.set("penstock.batch.queued_ms", served.receipt.queued_ms)
        self._count(served)
        return pb.ComputeResponse(result=served.result, batch=served.receipt, load=served.load)

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        self._queue(request.instance_id)
        asked = inference_pb2.ComputeStreamRequest(model=request.model, task=request.task)
        async for part in self._peers[request.instance_id].stream("ComputeStream", asked, call):
            yield pb.ComputeStreamResponse(
                chunk=part.chunk if part.HasField("chunk") else None,
                result=part.result if part.HasField("result") else None,
                load=part.load if part.HasField("load") else None,
            )

    async def AttachInstance(self, request: pb.AttachInstanceRequest, call: Call) -> pb.AttachInstanceResponse:
        if not request.instance_id or not request.address:
            raise invalid("instance_id" if not request.instance_id else "address", "is empty")
        if self._addresses.get(request.instance_id) != request.address:
            await self._detach(request.instance_id)
            peer = self._peers[request.instance_id] = self._dial(request.address)
            self._addresses[request.instance_id] = request.address
            instance = PeerInstance(peer, self._clock)
            self._queues[request.instance_id] = InstanceQueue(instance, request.concurrency, self._knobs, self._clock)
        return pb.AttachInstanceResponse(queue=self._row(request.instance_id))

    async def DetachInstance(self, request: pb.DetachInstanceRequest, call: Call) -> pb.DetachInstanceResponse:
        return pb.DetachInstanceResponse(returned=await self._detach(request.instance_id))

    async def ListQueues(self, request: pb.ListQueuesRequest, call: Call) -> pb.ListQueuesResponse:
        rows = [self._row(instance_id) for instance_id in self._queues]
        return pb.ListQueuesResponse(
            queues=rows, knobs={model: _knobs_out(knobs) for model, knobs in self._knobs.items()}
        )

    async def Configure(self, request: pb.ConfigureRequest, call: Call) -> pb.ConfigureResponse:
        current = self._knobs.get(request.model) or self._knobs[""]
        changes: dict[str, Any] = {
            field.name: tuple(value) if field.name == "preferred_batch_size" else value
            for field, value in request.knobs.ListFields()
            if field.name in KnobsSection.model_fields
        }
        unknown = [field.name for field, _ in request.knobs.ListFields() if field.name not in changes]
        if unknown:
            raise invalid(f"knobs.{unknown[0]}", "cannot be changed while running; set it in the configuration file")
        for name, value in changes.items():
            if name in ("max_batch_size", "max_batch_tokens", "look_ahead") and int(value) < 1:
                raise invalid(f"knobs.{name}", "must be at least 1")
        self._knobs[request.model] = current.model_copy(update=changes)
        return pb.ConfigureResponse(knobs=_knobs_out(self._knobs[request.model]))

    def reload(self, section: BatchingSection) -> None:
        """Put the file's knobs in force, for queues that wait already too; what `Configure` changed before is gone."""
        self._knobs.clear()
        self._knobs.update({"": section.default, **section.models})

    async def close(self) -> None:
        """Return what waits, finish what runs, close the connections."""
        for instance_id in list(self._queues):
            await self._detach(instance_id)

    def _queue(self, instance_id: str) -> InstanceQueue:
        queue = self._queues.get(instance_id)
        if queue is None:
            raise unavailable(f"no instance {instance_id!r} is attached here", reason="NOT_ATTACHED")
        return queue

    async def _detach(self, instance_id: str) -> int:
        queue = self._queues.pop(instance_id, None)
        self._addresses.pop(instance_id, None)
        if queue is None:
            return 0
        returned = queue.close()
        await queue.drained()
        await self._peers.pop(instance_id).close()
        return returned

    def _count(self, served: Served) -> None:
        self._queue_wait.record(served.receipt.queued_ms)
        self._batch_size.record(served.receipt.batch_size)

    def _row(self, instance_id: str) -> pb.Queue:
        queue, now = self._queues[instance_id], self._clock.monotonic()
        row = pb.Queue(
            instance_id=instance_id,
            address=self._addresses[instance_id],
            concurrency=queue.concurrency,
            running=queue.running,
        )
        for priority in sorted(policy.WEIGHTS, reverse=True):
            oldest_s = queue.waiting.oldest_s(priority)
            age_ms = 0 if oldest_s is None else round((now - oldest_s) * 1e3)
            row.classes.add(priority=priority, depth=queue.waiting.rows(priority), oldest_age_ms=age_ms)
        for model, cost in queue.costs.items():
            row.costs[model].CopyFrom(
                pb.CostModel(base_ms=cost.base_ms, per_token_ms=cost.per_token_ms, samples=cost.samples)
            )
        return row


def _size(task: inference_pb2.Task, estimated_tokens: int) -> tuple[int, int]:
    """(rows, tokens) of a task; tokens from its bytes where the caller gave no estimate."""
    kind = task.WhichOneof("task")
    texts = task.embed.texts if kind == "embed" else task.classify.texts if kind == "classify" else ()
    rows = max(1, len(texts))
    tokens = estimated_tokens or sum(len(text) for text in texts) // BYTES_A_TOKEN
    return rows, max(rows, tokens)


def _knobs_out(knobs: KnobsSection) -> pb.Knobs:
    return pb.Knobs(
        max_batch_size=knobs.max_batch_size,
        max_batch_tokens=knobs.max_batch_tokens,
        preferred_batch_size=knobs.preferred_batch_size,
        max_queue_delay_microseconds=knobs.max_queue_delay_microseconds,
        max_batch_ms=knobs.max_batch_ms,
        look_ahead=knobs.look_ahead,
    )
