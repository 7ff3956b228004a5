"""The batcher's service over a real server, with a scripted instance behind it: splitting, streams,
knobs, what is refused, what is measured.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.api.batcher_service import BatcherServicer
from penstock.batcher.instance import INFERENCE
from penstock.batcher.settings import BatchingSection, KnobsSection
from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.auth import internal
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import OK, Fault, invalid
from penstock.rpc.peers.stream import Peer, connect
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.server import TOKEN, peer_over, serving

SERVICE = pb.DESCRIPTOR.services_by_name["BatcherService"]
PREFIX = "penstock.batcher."


class LengthInstance(EmptyInstance):
    """Embeds a text as its length, and refuses the text `bad`."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        return inference_pb2.ComputeResponse(result=self._result(request.task))

    def _result(self, task: inference_pb2.Task) -> inference_pb2.TaskResult:
        if "bad" in task.embed.texts:
            raise invalid("task.embed.texts[0]", "is bad")
        result = inference_pb2.TaskResult(compute_ms=1.0)
        for text in task.embed.texts:
            result.embed.embeddings.add(values=[float(len(text))])
            result.usage.input_tokens += 1
        return result

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        for index, member in enumerate(request.members):
            row = inference_pb2.MemberResult(
                index=index, status=OK, result=self._result(member.task)
            )
            yield inference_pb2.ComputeBatchResponse(results=[row])

    async def ComputeStream(
        self, request: object, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        yield inference_pb2.ComputeStreamResponse(chunk=inference_pb2.GenerateChunk(delta="hello"))
        last = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        yield inference_pb2.ComputeStreamResponse(
            chunk=last, result=inference_pb2.TaskResult(revision="1")
        )


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A batcher with the instance `i` attached; its batches have at most four rows."""
    servicer = BatcherServicer(
        BatchingSection(default=KnobsSection(max_batch_size=4)),
        lambda address: connect(address, INFERENCE, token=TOKEN),
        SystemClock(),
        NO_TELEMETRY,
    )
    async with (
        serving([Endpoint(INFERENCE, LengthInstance(), internal(TOKEN))]) as instance,
        peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as connected,
    ):
        attach = pb.AttachInstanceRequest(instance_id="i", address=instance.address, concurrency=2)
        await connected.call("AttachInstance", attach, Call())
        yield connected
        await servicer.close()


def compute_request(*texts: str, instance_id: str = "i") -> pb.ComputeRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=texts))
    return pb.ComputeRequest(instance_id=instance_id, model="m", task=task)


async def test_a_client_batch_larger_than_ours_is_split_and_merged_in_order(peer: Peer) -> None:
    texts = ["x" * size for size in range(1, 12)]
    response = await peer.call("Compute", compute_request(*texts), Call())
    lengths = [embedding.values[0] for embedding in response.result.embed.embeddings]
    assert lengths == [float(size) for size in range(1, 12)]
    assert response.result.usage.input_tokens == 11
    assert response.batch.release_reason == "split"


async def test_one_bad_part_fails_the_whole_and_leaves_nothing_behind(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", compute_request(*["x"] * 4, "bad", *["y"] * 6), Call())
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await peer.call("Compute", compute_request("after"), Call())).result.embed.embeddings


async def test_a_stream_ends_with_its_result_and_receipt(peer: Peer) -> None:
    task = inference_pb2.Task(generate=inference_pb2.GenerateTask())
    request = pb.ComputeStreamRequest(instance_id="i", model="m", task=task)
    responses = [response async for response in peer.stream("ComputeStream", request, Call())]
    assert [response.chunk.delta for response in responses] == ["hello", ""]
    assert responses[-1].batch.batch_size == 1
    assert responses[-1].result.revision == "1"


async def test_an_instance_that_is_not_attached_is_unavailable(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", compute_request("x", instance_id="nobody"), Call())
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_ATTACHED")


@pytest.mark.parametrize(
    ("instance_id", "address", "field"), [("", "unix:/x", "instance_id"), ("i", "", "address")]
)
async def test_attaching_names_the_empty_field(
    peer: Peer, instance_id: str, address: str, field: str
) -> None:
    request = pb.AttachInstanceRequest(instance_id=instance_id, address=address)
    with pytest.raises(Fault) as caught:
        await peer.call("AttachInstance", request, Call())
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_knobs_are_changed_while_running_and_listed(peer: Peer) -> None:
    policy = pb.QueuePolicy(
        priority=1, max_queue_size=7, timeout_action=pb.TIMEOUT_ACTION_DELAY, weight=2.5
    )
    changes = pb.Knobs(
        max_batch_size=9, strict_priority=True, preferred_batch_size=[4, 8], queue_policies=[policy]
    )
    response = await peer.call("Configure", pb.ConfigureRequest(knobs=changes), Call())
    knobs = response.knobs
    assert (knobs.max_batch_size, knobs.strict_priority) == (9, True)
    assert list(knobs.preferred_batch_size) == [4, 8]
    low = next(policy for policy in knobs.queue_policies if policy.priority == 1)
    assert (low.max_queue_size, low.timeout_action, low.weight) == (7, pb.TIMEOUT_ACTION_DELAY, 2.5)
    listed = await peer.call("ListQueues", pb.ListQueuesRequest(), Call())
    assert listed.knobs[""] == knobs
    assert [row.instance_id for row in listed.queues] == ["i"]


async def test_a_models_own_knobs_stand_beside_the_default(peer: Peer) -> None:
    request = pb.ConfigureRequest(model="m", knobs=pb.Knobs(max_batch_size=2))
    await peer.call("Configure", request, Call())
    listed = await peer.call("ListQueues", pb.ListQueuesRequest(), Call())
    sizes = {model: knobs.max_batch_size for model, knobs in listed.knobs.items()}
    assert sizes == {"": 4, "m": 2}


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        (pb.Knobs(max_batch_size=0), "knobs.max_batch_size"),
        (pb.Knobs(max_batch_ms=-1), "knobs.max_batch_ms"),
        (pb.Knobs(queue_policies=[pb.QueuePolicy(priority=0)]), "knobs.queue_policies.priority"),
        (
            pb.Knobs(
                queue_policies=[pb.QueuePolicy(priority=3, default_timeout_microseconds=2**64 - 1)]
            ),
            "knobs.queue_policies.high.default_timeout_microseconds",
        ),
        (
            pb.Knobs(queue_policies=[pb.QueuePolicy(priority=1, weight=-1)]),
            "knobs.queue_policies.low.weight",
        ),
    ],
)
async def test_a_knob_with_a_bad_value_is_named(peer: Peer, knobs: pb.Knobs, field: str) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Configure", pb.ConfigureRequest(knobs=knobs), Call())
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


class RecordingTelemetry(Telemetry):
    """Keeps what is recorded, by instrument."""

    def __init__(self) -> None:
        super().__init__("batcher")
        self.values: defaultdict[str, list[float]] = defaultdict(list)
        self.drops: Counter[str] = Counter()
        self.gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str, unit: str, description: str) -> Any:
        def add(amount: int, attributes: dict[str, str]) -> None:
            self.drops[attributes["reason"]] += amount

        return SimpleNamespace(add=add)

    def histogram(self, name: str, unit: str, description: str) -> Any:
        return SimpleNamespace(record=self.values[name.removeprefix(PREFIX)].append)

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        self.gauges[name] = read

    def by_class(self, gauge: str) -> dict[str, float]:
        """A gauge's value for each priority class."""
        start = f"{PREFIX}{gauge}."
        return {
            name.removeprefix(start): read()
            for name, read in self.gauges.items()
            if name.startswith(start)
        }


class GatedPeer:
    """A peer to an instance that answers when its gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def call(self, method: str, request: Any, call: Call) -> Any:
        await self.gate.wait()
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision="1"))

    async def stream(self, method: str, request: Any, call: Call) -> AsyncIterator[Any]:
        await self.gate.wait()
        for index in range(len(request.members)):
            row = inference_pb2.MemberResult(index=index, status=OK)
            yield inference_pb2.ComputeBatchResponse(results=[row])

    async def close(self) -> None:
        return None


class MeasuredBatcher:
    """A batcher before one gated instance, in virtual time, with its metrics kept."""

    def __init__(self) -> None:
        self.peer, self.clock, self.metrics = GatedPeer(), FakeClock(), RecordingTelemetry()
        section = BatchingSection(default=KnobsSection(max_queue_size=3, max_batch_ms=0))
        self.servicer = BatcherServicer(section, lambda _: self.peer, self.clock, self.metrics)

    async def attach(self) -> None:
        request = pb.AttachInstanceRequest(instance_id="i", address="x", concurrency=1)
        await self.servicer.AttachInstance(request, Call())

    def submit(self, text: str, deadline_s: float = 60.0) -> asyncio.Task[pb.ComputeResponse]:
        call = Call(Principal("acme"), deadline_s=deadline_s)
        return asyncio.create_task(self.servicer.Compute(compute_request(text), call))


@pytest.fixture
async def batcher() -> AsyncIterator[MeasuredBatcher]:
    made = MeasuredBatcher()
    await made.attach()
    yield made
    await made.servicer.close()


async def test_depth_and_age_of_what_waits_are_measured(batcher: MeasuredBatcher) -> None:
    tasks = [batcher.submit("text") for _ in range(4)]
    await batcher.clock.advance(1.0)
    assert batcher.metrics.by_class("depth") == {"low": 0, "normal": 3, "high": 0, "critical": 0}
    ages = {"low": 0, "normal": 1.0, "high": 0, "critical": 0}
    assert batcher.metrics.by_class("oldest_age") == ages
    batcher.peer.gate.set()
    await asyncio.gather(*tasks)


async def test_waits_batch_sizes_and_padding_are_measured(batcher: MeasuredBatcher) -> None:
    running = batcher.submit("first")
    await batcher.clock.advance(0)
    waiting = [batcher.submit("four " * 4), batcher.submit("five " * 4)]
    await batcher.clock.advance(2.0)
    batcher.peer.gate.set()
    responses = await asyncio.gather(running, *waiting)
    assert batcher.metrics.values["queue_wait"] == [0.0, 2000.0, 2000.0]
    assert batcher.metrics.values["batch_size"] == [1, 2, 2]
    assert batcher.metrics.values["padding_waste"] == [0.0]
    assert responses[1].batch.release_reason == "instance_free"


async def test_drops_are_counted_by_reason(batcher: MeasuredBatcher) -> None:
    served = [batcher.submit("text") for _ in range(3)]
    late = batcher.submit("late", deadline_s=1.5)
    await batcher.clock.advance(0)
    with pytest.raises(Fault, match="full"):
        await batcher.submit("one too many")
    await batcher.clock.advance(2.0)
    batcher.peer.gate.set()
    await asyncio.gather(*served)
    with pytest.raises(Fault):
        await late
    assert batcher.metrics.drops == {"queue_full": 1, "timeout": 1}


async def test_an_idle_queue_is_listed_as_empty(batcher: MeasuredBatcher) -> None:
    rows = (await batcher.servicer.ListQueues(pb.ListQueuesRequest(), Call())).queues
    assert [(row.instance_id, row.running) for row in rows] == [("i", 0)]
    assert sum(each.depth for each in rows[0].classes) == 0
