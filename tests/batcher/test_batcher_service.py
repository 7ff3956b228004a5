"""The batcher over a real server, with a scripted instance behind it: splitting, streams, knobs,
what is refused.
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
from penstock.testkit.server import TOKEN, peer_over, serving

SERVICE = pb.DESCRIPTOR.services_by_name["BatcherService"]


class Instruments(Telemetry):
    """Keeps what is measured, by instrument."""

    def __init__(self) -> None:
        super().__init__("batcher")
        self.values: defaultdict[str, list[tuple[float, object]]] = defaultdict(list)
        self.gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str, unit: str, description: str) -> Any:
        return SimpleNamespace(
            add=lambda amount, attributes=None: self.values[name].append((amount, attributes))
        )

    def histogram(self, name: str, unit: str, description: str) -> Any:
        return SimpleNamespace(
            record=lambda amount, attributes=None: self.values[name].append((amount, attributes))
        )

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        self.gauges[name] = read

    def now(self, name: str) -> dict[str, float]:
        """A gauge of every class."""
        start = f"penstock.batcher.{name}."
        return {
            key.removeprefix(start): read()
            for key, read in self.gauges.items()
            if key.startswith(start)
        }


class Counting:
    """An instance whose embedding of a text is its length; the text `bad` is refused."""

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

    ListModels = LoadModel = UnloadModel = Compute


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    section = BatchingSection(default=KnobsSection(max_batch_size=4))
    servicer = BatcherServicer(
        section,
        lambda address: connect(address, INFERENCE, token=TOKEN),
        SystemClock(),
        NO_TELEMETRY,
    )
    async with (
        serving([Endpoint(INFERENCE, Counting(), internal(TOKEN))]) as instance,
        peer_over("unix-stream", Endpoint(SERVICE, servicer, internal(TOKEN))) as connected,
    ):
        attach = pb.AttachInstanceRequest(instance_id="i", address=instance.address, concurrency=2)
        await connected.call("AttachInstance", attach, Call())
        yield connected
        await servicer.close()


def compute(*texts: str, instance_id: str = "i") -> pb.ComputeRequest:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=texts))
    return pb.ComputeRequest(instance_id=instance_id, model="m", task=task)


async def test_a_batch_larger_than_ours_is_split_and_joined_in_order(peer: Peer) -> None:
    texts = ["x" * size for size in range(1, 12)]
    answer = await peer.call("Compute", compute(*texts), Call())
    assert [item.values[0] for item in answer.result.embed.embeddings] == [
        float(size) for size in range(1, 12)
    ]
    assert answer.result.usage.input_tokens == 11
    assert answer.batch.release_reason == "split"


async def test_one_bad_part_fails_the_whole_and_nothing_hangs(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", compute(*["x"] * 4, "bad", *["y"] * 6), Call())
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await peer.call("Compute", compute("after"), Call())).result.embed.embeddings


async def test_a_stream_waits_its_turn_and_ends_with_its_receipt(peer: Peer) -> None:
    request = pb.ComputeStreamRequest(
        instance_id="i", model="m", task=inference_pb2.Task(generate=inference_pb2.GenerateTask())
    )
    got = [part async for part in peer.stream("ComputeStream", request, Call())]
    assert [part.chunk.delta for part in got] == ["hello", ""]
    assert got[-1].batch.batch_size == 1
    assert got[-1].result.revision == "1"


async def test_an_instance_that_is_not_attached_is_unavailable(peer: Peer) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Compute", compute("x", instance_id="nobody"), Call())
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_ATTACHED")


async def test_knobs_change_while_running_and_are_shown(peer: Peer) -> None:
    policy = pb.QueuePolicy(
        priority=1, max_queue_size=7, timeout_action=pb.TIMEOUT_ACTION_DELAY, weight=2.5
    )
    knobs = pb.Knobs(
        max_batch_size=9, strict_priority=True, preferred_batch_size=[4, 8], queue_policies=[policy]
    )
    answer = await peer.call("Configure", pb.ConfigureRequest(knobs=knobs), Call())
    assert (answer.knobs.max_batch_size, answer.knobs.strict_priority) == (9, True)
    low = next(item for item in answer.knobs.queue_policies if item.priority == 1)
    assert (low.max_queue_size, low.timeout_action, low.weight) == (7, pb.TIMEOUT_ACTION_DELAY, 2.5)
    listed = await peer.call("ListQueues", pb.ListQueuesRequest(), Call())
    assert listed.knobs[""] == answer.knobs
    assert [row.instance_id for row in listed.queues] == ["i"]


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        (pb.Knobs(max_batch_size=0), "knobs.max_batch_size"),
        (pb.Knobs(max_batch_ms=-1), "knobs.max_batch_ms"),
        (pb.Knobs(queue_policies=[pb.QueuePolicy(priority=0)]), "knobs.queue_policies.priority"),
        (
            pb.Knobs(queue_policies=[pb.QueuePolicy(priority=1, weight=-1)]),
            "knobs.queue_policies.low.weight",
        ),
    ],
)
async def test_a_knob_that_cannot_be_is_named(peer: Peer, knobs: pb.Knobs, field: str) -> None:
    with pytest.raises(Fault) as caught:
        await peer.call("Configure", pb.ConfigureRequest(knobs=knobs), Call())
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


class Gate:
    """A peer that answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def call(self, method: str, request: Any, call: Call) -> Any:
        await self.open.wait()
        return inference_pb2.ComputeResponse(result=inference_pb2.TaskResult(revision="1"))

    async def stream(self, method: str, request: Any, call: Call) -> AsyncIterator[Any]:
        await self.open.wait()
        for index in range(len(request.members)):
            row = inference_pb2.MemberResult(index=index, status=OK)
            yield inference_pb2.ComputeBatchResponse(results=[row])

    async def close(self) -> None:
        return None


async def test_waits_sizes_padding_drops_depth_and_age_are_measured() -> None:
    gate, clock, seen = Gate(), FakeClock(), Instruments()
    servicer = BatcherServicer(
        BatchingSection(default=KnobsSection(max_queue_size=3, max_batch_ms=0)),
        lambda _: gate,
        clock,
        seen,
    )
    await servicer.AttachInstance(
        pb.AttachInstanceRequest(instance_id="i", address="x", concurrency=1), Call()
    )

    def ask(text: str, priority: int, deadline_s: float = 60.0) -> asyncio.Task[pb.ComputeResponse]:
        call = Call(Principal("acme"), priority, deadline_s=deadline_s)
        return asyncio.create_task(servicer.Compute(compute(text), call))

    running = ask("first", 2)
    await settled()
    waiting = [ask("four " * 4, 2), ask("five " * 4, 2), ask("late", 2, 1.5)]
    await settled()
    await clock.advance(1.0)
    assert seen.now("depth") == {"low": 0, "normal": 3, "high": 0, "critical": 0}
    assert seen.now("oldest_age") == {"low": 0, "normal": 1.0, "high": 0, "critical": 0}
    with pytest.raises(Fault, match="full"):
        await ask("too much", 2)
    await clock.advance(1.0)
    gate.open.set()
    outcomes = await asyncio.gather(running, *waiting, return_exceptions=True)
    assert isinstance(outcomes[3], Fault)
    drops = Counter(
        attributes["reason"] for _, attributes in seen.values["penstock.batcher.dropped"]
    )  # type: ignore[index]
    assert drops == {"queue_full": 1, "timeout": 1}
    assert [value for value, _ in seen.values["penstock.batcher.queue_wait"]] == [
        0.0,
        2000.0,
        2000.0,
    ]
    assert [value for value, _ in seen.values["penstock.batcher.batch_size"]] == [1, 2, 2]
    assert [value for value, _ in seen.values["penstock.batcher.padding_waste"]] == [0.0]
    assert outcomes[1].batch.release_reason == "instance_free"  # type: ignore[union-attr]
    rows = (await servicer.ListQueues(pb.ListQueuesRequest(), Call())).queues
    assert (rows[0].instance_id, rows[0].running, sum(item.depth for item in rows[0].classes)) == (
        "i",
        0,
        0,
    )
    await servicer.close()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
