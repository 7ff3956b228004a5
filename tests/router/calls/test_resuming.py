"""Streams and instances that go away: a safer instance is preferred, a cut answer goes on where one
can, else the caller hears of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.resuming import RESUMES
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.spot_avoidance import OLD_S, risky
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import unavailable
from penstock.testkit.instance import QuietInstance

from .conftest import METADATA, Routed

WORDS = ["one ", "two ", "three ", "four"]


class Speaker(QuietInstance):
    """Counts to four, from where the conversation ends; breaks off after so many words."""

    def __init__(self, after: int = 9, calls_tool: bool = False) -> None:
        self.after, self.calls_tool = after, calls_tool
        self.tasks: list[inference_pb2.GenerateTask] = []

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        task = request.task.generate
        self.tasks.append(task)
        last = task.messages[-1]
        words = WORDS[len(last.content.split()) if last.role == "assistant" else 0 :]
        for number, word in enumerate(words):
            if number == self.after:
                raise unavailable("the machine goes")
            tool = [inference_pb2.ToolCall(name="f")] if self.calls_tool else []
            yield inference_pb2.ComputeStreamResponse(
                chunk=inference_pb2.GenerateChunk(delta=word, tool_calls=tool)
            )
        result = inference_pb2.TaskResult(revision="1")
        result.generate.message.content = "".join(words)
        result.usage.input_tokens, result.usage.output_tokens = 5, len(words)
        ended = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        yield inference_pb2.ComputeStreamResponse(chunk=ended, result=result)


@pytest.fixture
async def routed(start_router: Callable[..., Any]) -> AsyncIterator[Routed]:
    async with start_router(RouterSettings(listen="127.0.0.1:0")) as found:
        yield found


async def join(
    routed: Routed, name: str, speaker: Speaker, *capabilities: str, spot: bool = False
) -> Speaker:
    await routed.join(name, speaker, "m")
    instance = routed.registry.registered[name]
    instance.capabilities.extend(capabilities)
    if spot:
        instance.tenancy = pb.TENANCY_SPOT
    return speaker


async def stream(routed: Routed, max_tokens: int = 0) -> list[pb.GenerateStreamResponse]:
    message = inference_pb2.Message(role="user", content="count")
    task = inference_pb2.GenerateTask(messages=[message], max_tokens=max_tokens)
    request = pb.GenerateStreamRequest(task=task, options=pb.CallOptions(model="m"))
    return [
        part async for part in routed.stub.GenerateStream(request, metadata=METADATA, timeout=10)
    ]


async def test_a_cut_answer_goes_on_where_an_instance_can(routed: Routed) -> None:
    first = await join(routed, "first", Speaker(after=2))
    second = await join(routed, "second", Speaker(), RESUMES, spot=True)
    parts = await stream(routed, max_tokens=100)
    assert "".join(part.chunk.delta for part in parts) == "one two three four"
    assert (len(first.tasks), len(second.tasks)) == (1, 1)
    assert [(message.role, message.content) for message in second.tasks[0].messages] == [
        ("user", "count"),
        ("assistant", "one two "),
    ]
    assert second.tasks[0].max_tokens == 98
    receipt = parts[-1].receipt
    assert (
        receipt.route.instance_id == "second"
        and "resumed after 8 characters: UNAVAILABLE" in receipt.notes
    )
    assert receipt.usage.estimated and receipt.usage.output_tokens == 4


async def test_an_answer_that_breaks_twice_goes_on_twice(routed: Routed) -> None:
    await join(routed, "a", Speaker(after=1), RESUMES)
    await join(routed, "b", Speaker(after=2), RESUMES, spot=True)
    await join(routed, "c", Speaker(), RESUMES, spot=True)
    routed.registry.since["b"] -= OLD_S
    parts = await stream(routed)
    assert "".join(part.chunk.delta for part in parts) == "one two three four"
    assert parts[-1].receipt.route.instance_id == "c"


@pytest.mark.parametrize("why", ["nobody can", "nobody else", "a tool was called"])
async def test_where_none_can_go_on_the_caller_hears_of_it(routed: Routed, why: str) -> None:
    await join(routed, "first", Speaker(after=2, calls_tool=why == "a tool was called"), RESUMES)
    if why != "nobody else":
        await join(
            routed, "second", Speaker(), *([] if why == "nobody can" else [RESUMES]), spot=True
        )
    heard: list[str] = []
    message = inference_pb2.Message(role="user", content="count")
    request = pb.GenerateStreamRequest(
        task=inference_pb2.GenerateTask(messages=[message]), options=pb.CallOptions(model="m")
    )
    with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
        async for part in routed.stub.GenerateStream(request, metadata=METADATA, timeout=10):
            heard.append(part.chunk.delta)  # noqa: PERF401 - what came before the fault counts
    assert heard == WORDS[:2]


async def test_a_stream_goes_to_the_safer_instance_while_that_is_free(routed: Routed) -> None:
    cheap = await join(routed, "cheap", Speaker(), spot=True)
    safe = await join(routed, "safe", Speaker())
    for _ in range(6):
        await stream(routed)
    assert (len(cheap.tasks), len(safe.tasks)) == (0, 6)
    routed.registry.members["safe"].own += 20
    try:
        await stream(routed)
    finally:
        routed.registry.members["safe"].own -= 20
    assert len(cheap.tasks) == 1


def test_safety_is_on_demand_then_old_spot_then_young() -> None:
    fleet = Fleet()
    fleet.members = [Member(name, 1, proven=True) for name in ("paid", "old", "young")]
    spot = pb.Instance(tenancy=pb.TENANCY_SPOT)
    instances = {"paid": pb.Instance(), "old": spot, "young": spot}
    since, now = {"paid": 0.0, "old": 0.0, "young": OLD_S}, OLD_S + 60.0

    def left_alone(*busy: str) -> frozenset[str]:
        for member in fleet.members:
            member.own = int(member.id in busy)
        return risky(fleet, instances, since, now, ())

    assert left_alone() == {"old", "young"}
    assert left_alone("paid") == {"young"}
    assert left_alone("paid", "old") == left_alone("paid", "old", "young") == frozenset()
    assert risky(fleet, dict.fromkeys(instances, spot), {}, now, ()) == frozenset()
