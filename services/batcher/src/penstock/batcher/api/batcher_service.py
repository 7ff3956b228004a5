"""The door: each RPC is proto in, the queue of its instance, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher import fair_queue as policy
from penstock.batcher.instance import PeerInstance
from penstock.batcher.queue import InstanceQueue
from penstock.batcher.settings import BatchingSection, KnobsSection
from penstock.batcher.split_merge import join, parts, size_of, together
from penstock.batcher.tuning import NAMES, changed, shown
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, unavailable
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock


class BatcherServicer:
    """penstock.api.batcher.v1.BatcherService. Owns the queues and the peers to their instances."""

    def __init__(
        self,
        section: BatchingSection,
        dial: Callable[[str], Peer],
        clock: Clock,
        telemetry: Telemetry,
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
        self._padding = telemetry.histogram(
            "penstock.batcher.padding_waste", "1", "Share of a padded batch that is padding"
        )
        self._drops = telemetry.counter(
            "penstock.batcher.dropped", "{member}", "Members dropped, by reason"
        )
        for priority, name in NAMES.items():
            self._watch(priority, name)

    def _watch(self, priority: int, name: str) -> None:
        def depth() -> float:
            return float(sum(queue.waiting.rows(priority) for queue in self._queues.values()))

        def oldest_s() -> float:
            arrivals = [queue.waiting.oldest_s(priority) for queue in self._queues.values()]
            now = self._clock.monotonic()
            return max((now - arrived for arrived in arrivals if arrived is not None), default=0.0)

        self._telemetry.gauge(
            f"penstock.batcher.depth.{name}", "{row}", f"Rows waiting with priority {name}", depth
        )
        self._telemetry.gauge(
            f"penstock.batcher.oldest_age.{name}",
            "s",
            f"Age of the oldest row with priority {name}",
            oldest_s,
        )

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        queue = self._queue(request.instance_id)
        tasks = parts(request.task, queue.knobs_of(request.model).max_batch_size)
        with self._telemetry.span(
            "queue", call, attributes={"penstock.instance.id": request.instance_id}
        ) as span:
            if len(tasks) == 1:
                size = size_of(request.task, request.estimated_tokens)
                whole = await queue.submit(request.task, request.model, span.call, size)
            else:
                whole = join(
                    await together(
                        [
                            queue.submit(task, request.model, span.call, size_of(task, 0))
                            for task in tasks
                        ]
                    )
                )
            span.set("penstock.batch.size", whole.receipt.batch_size)
            span.set("penstock.batch.queued_ms", whole.receipt.queued_ms)
        self._queue_wait.record(whole.receipt.queued_ms)
        self._batch_size.record(whole.receipt.batch_size)
        return pb.ComputeResponse(result=whole.result, batch=whole.receipt, load=whole.load)

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        queue = self._queue(request.instance_id)
        asked = inference_pb2.ComputeStreamRequest(model=request.model, task=request.task)
        size = size_of(request.task, request.estimated_tokens)
        async with queue.turn(request.task, request.model, call, size) as receipt:
            began, first = self._clock.monotonic(), True
            async for part in self._peers[request.instance_id].stream("ComputeStream", asked, call):
                if first:
                    queue.first_token((self._clock.monotonic() - began) * 1e3)
                    first = False
                answer = pb.ComputeStreamResponse(chunk=part.chunk)
                if part.HasField("result"):
                    answer.result.CopyFrom(part.result)
                    answer.batch.CopyFrom(receipt)
                    answer.load.CopyFrom(queue.with_queue(part.load))
                yield answer

    async def AttachInstance(
        self, request: pb.AttachInstanceRequest, call: Call
    ) -> pb.AttachInstanceResponse:
        if not request.instance_id or not request.address:
            raise invalid("instance_id" if not request.instance_id else "address", "is empty")
        if self._addresses.get(request.instance_id) != request.address:
            await self._detach(request.instance_id)
            peer = self._peers[request.instance_id] = self._dial(request.address)
            self._addresses[request.instance_id] = request.address
            self._queues[request.instance_id] = InstanceQueue(
                PeerInstance(peer, self._clock),
                request.concurrency,
                self._knobs,
                self._clock,
                adaptive=request.adaptive_concurrency,
                dropped=lambda reason: self._drops.add(1, {"reason": reason}),
                formed=self._padding.record,
            )
        return pb.AttachInstanceResponse(queue=self._row(request.instance_id))

    async def DetachInstance(
        self, request: pb.DetachInstanceRequest, call: Call
    ) -> pb.DetachInstanceResponse:
        return pb.DetachInstanceResponse(returned=await self._detach(request.instance_id))

    async def ListQueues(self, request: pb.ListQueuesRequest, call: Call) -> pb.ListQueuesResponse:
        rows = [self._row(instance_id) for instance_id in self._queues]
        return pb.ListQueuesResponse(
            queues=rows, knobs={model: shown(knobs) for model, knobs in self._knobs.items()}
        )

    async def Configure(self, request: pb.ConfigureRequest, call: Call) -> pb.ConfigureResponse:
        current = self._knobs.get(request.model) or self._knobs[""]
        self._knobs[request.model] = changed(current, request.knobs)
        return pb.ConfigureResponse(knobs=shown(self._knobs[request.model]))

    def reload(self, section: BatchingSection) -> None:
        """Put the file's knobs in force, for queues that wait already too; what `Configure` changed
        before is gone.
        """
        self._knobs.clear()
        self._knobs.update({"": section.default, **section.models})

    async def close(self) -> None:
        """Return what waits, finish what runs, close the connections."""
        for instance_id in list(self._queues):
            await self._detach(instance_id)

    def _queue(self, instance_id: str) -> InstanceQueue:
        queue = self._queues.get(instance_id)
        if queue is None:
            raise unavailable(
                f"no instance {instance_id!r} is attached here", reason=Reason.NOT_ATTACHED
            )
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

    def _row(self, instance_id: str) -> pb.Queue:
        queue, now = self._queues[instance_id], self._clock.monotonic()
        row = pb.Queue(
            instance_id=instance_id,
            address=self._addresses[instance_id],
            concurrency=queue.limit.limit,
            running=queue.running,
        )
        for priority in sorted(policy.WEIGHTS, reverse=True):
            oldest_s = queue.waiting.oldest_s(priority)
            age_ms = 0 if oldest_s is None else round((now - oldest_s) * 1e3)
            row.classes.add(
                priority=priority, depth=queue.waiting.rows(priority), oldest_age_ms=age_ms
            )
        for model, cost in queue.costs.items():
            row.costs[model].CopyFrom(
                pb.CostModel(
                    base_ms=cost.base_ms, per_token_ms=cost.per_token_ms, samples=cost.samples
                )
            )
        return row
