"""Streams and instances that go away: a safer instance is preferred, a cut answer goes on where one
can, and where none can the caller hears of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.resuming import RESUMES, Delivered, continued, joined
from penstock.router.instances.backends import Computed
from penstock.router.routing.spot_avoidance import OLD_S
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import unavailable
from penstock.testkit.instance import EmptyInstance

from ..routed import METADATA, Routed, StartRouter

WORDS = ["one ", "two ", "three ", "four"]


class Speaker(EmptyInstance):
    """Counts to four, from where the conversation ends; breaks off after so many words."""

    def __init__(self, after: int = 9, calls_tool: bool = False) -> None:
        self.after = after
        self.calls_tool = calls_tool
        self.tasks: list[inference_pb2.GenerateTask] = []

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        task = request.task.generate
        self.tasks.append(task)
        last = task.messages[-1]
        words = WORDS[
            len(last.content.split()) if last.role == inference_pb2.ROLE_ASSISTANT else 0 :
        ]
        for number, word in enumerate(words):
            if number == self.after:
                raise unavailable("the machine goes")
            tool = [inference_pb2.ToolCallDelta(name="f")] if self.calls_tool else []
            yield inference_pb2.ComputeStreamResponse(
                chunk=inference_pb2.GenerateChunk(delta=word, tool_calls=tool)
            )
        result = inference_pb2.TaskResult(revision="1")
        result.generate.message.content = "".join(words)
        result.usage.input_tokens, result.usage.output_tokens = 5, len(words)
        ended = inference_pb2.GenerateChunk(finish_reason=inference_pb2.FINISH_REASON_STOP)
        yield inference_pb2.ComputeStreamResponse(chunk=ended, result=result)


@pytest.fixture
async def routed(start_router: StartRouter) -> AsyncIterator[Routed]:
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
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content="count")
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
        (inference_pb2.ROLE_USER, "count"),
        (inference_pb2.ROLE_ASSISTANT, "one two "),
    ]
    assert second.tasks[0].max_tokens == 98
    receipt = parts[-1].receipt
    assert receipt.route.instance_id == "second"
    assert "resumed after 8 characters: UNAVAILABLE" in receipt.notes
    assert receipt.usage.estimated
    assert receipt.usage.output_tokens == 4
    assert routed.selection.branches["resumed"] == 1


async def test_an_answer_that_breaks_twice_goes_on_twice(routed: Routed) -> None:
    await join(routed, "a", Speaker(after=1), RESUMES)
    await join(routed, "b", Speaker(after=2), RESUMES, spot=True)
    await join(routed, "c", Speaker(), RESUMES, spot=True)
    routed.registry.since["b"] -= OLD_S
    parts = await stream(routed)
    assert "".join(part.chunk.delta for part in parts) == "one two three four"
    assert parts[-1].receipt.route.instance_id == "c"


async def heard_before_the_fault(routed: Routed) -> list[str]:
    """What a caller hears of a stream that then fails as UNAVAILABLE."""
    heard: list[str] = []
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, content="count")
    request = pb.GenerateStreamRequest(
        task=inference_pb2.GenerateTask(messages=[message]), options=pb.CallOptions(model="m")
    )
    with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
        async for part in routed.stub.GenerateStream(request, metadata=METADATA, timeout=10):
            heard.append(part.chunk.delta)  # noqa: PERF401 - what came before the fault counts
    return heard


async def test_where_no_instance_can_resume_the_caller_hears_of_the_cut(routed: Routed) -> None:
    await join(routed, "first", Speaker(after=2), RESUMES)
    await join(routed, "second", Speaker(), spot=True)
    assert await heard_before_the_fault(routed) == WORDS[:2]


async def test_where_there_is_no_other_instance_the_caller_hears_of_the_cut(
    routed: Routed,
) -> None:
    await join(routed, "first", Speaker(after=2), RESUMES)
    assert await heard_before_the_fault(routed) == WORDS[:2]


async def test_where_a_tool_was_called_the_caller_hears_of_the_cut(routed: Routed) -> None:
    await join(routed, "first", Speaker(after=2, calls_tool=True), RESUMES)
    await join(routed, "second", Speaker(), RESUMES, spot=True)
    assert await heard_before_the_fault(routed) == WORDS[:2]


async def test_a_stream_goes_to_the_safer_instance_while_that_is_free(routed: Routed) -> None:
    cheap = await join(routed, "cheap", Speaker(), spot=True)
    safe = await join(routed, "safe", Speaker())
    for _ in range(6):
        await stream(routed)
    assert (len(cheap.tasks), len(safe.tasks)) == (0, 6)
    with routed.occupied("safe", requests=20):
        await stream(routed)
    assert len(cheap.tasks) == 1


def says(delta: str = "", **more: object) -> inference_pb2.GenerateChunk:
    return inference_pb2.GenerateChunk(delta=delta, **more)  # type: ignore[arg-type]


def test_an_answer_that_was_delivered_as_text_can_be_gone_on_with() -> None:
    delivered = Delivered()
    assert not delivered.begun
    for chunk in (says(), says("one "), says("two")):
        delivered.add(chunk)
    assert (delivered.begun, delivered.whole, delivered.text) == (True, True, "one two")


@pytest.mark.parametrize(
    "chunk",
    [
        says(tool_calls=[inference_pb2.ToolCallDelta(name="f")]),
        says(finish_reason=inference_pb2.FINISH_REASON_STOP),
    ],
)
def test_what_text_cannot_hold_cannot_be_gone_on_with(chunk: inference_pb2.GenerateChunk) -> None:
    delivered = Delivered()
    delivered.add(chunk)
    delivered.add(says("more"))
    assert not delivered.whole


@pytest.mark.parametrize(("max_tokens", "left"), [(0, 0), (100, 98), (2, 1), (1, 1)])
def test_the_rest_of_an_answer_has_what_is_left_of_its_length(max_tokens: int, left: int) -> None:
    task = inference_pb2.Task()
    task.generate.messages.add(role=inference_pb2.ROLE_USER, content="count")
    task.generate.max_tokens = max_tokens
    rest = continued(task, "one two ").generate
    assert rest.max_tokens == left
    assert [(turn.role, turn.content) for turn in rest.messages] == [
        (inference_pb2.ROLE_USER, "count"),
        (inference_pb2.ROLE_ASSISTANT, "one two "),
    ]
    assert len(task.generate.messages) == 1, "the task itself is left as it is"


def test_the_last_piece_holds_the_whole_answer_and_estimates_the_first_part() -> None:
    result = inference_pb2.TaskResult()
    result.generate.message.content = "three four"
    result.usage.input_tokens, result.usage.output_tokens = 5, 2
    whole = joined(Computed(result), "one two ", 7).result
    assert whole is not None
    assert whole.generate.message.content == "one two three four"
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (5 + 7, 2 + 8 // 4)
    assert whole.usage.estimated
    piece = Computed(None, chunk=says("x"))
    assert joined(piece, "one two ", 7) is piece
