"""Which instance serves, and what if it fails: retries, hedges, capabilities, draining, ejection,
and the reasons that can be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Caller, chat, options, refused
from .instance import Asked, Refuse, Script, Serve, echo, embedded, prompt_of, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


def failing(code: grpc.StatusCode, reason: str = "", times: int = 1) -> tuple[Script, list[Asked]]:
    """A script for several instances of which the first `times` calls fail; and those calls."""
    failed: list[Asked] = []

    async def script(asked: Asked) -> Pieces:
        if len(failed) < times:
            failed.append(asked)
            raise Refuse(code, reason)
        async for item in echo(asked):
            yield item

    return script, failed


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED"),
        (grpc.StatusCode.UNAVAILABLE, ""),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    ],
)
async def test_what_was_not_begun_or_is_gone_is_tried_at_another_instance(
    caller: Caller, model: str, serve: Serve, code: grpc.StatusCode, reason: str
) -> None:
    script, failed = failing(code, reason)
    async with serve(script, model) as one, serve(script, model) as two:
        answer = await caller.generate(chat("hello"), model=model, cache=BYPASS)
    assert answer.result.message.content == "hello"
    assert (answer.receipt.route.attempts, answer.receipt.route.candidates) == (2, 2)
    loser = one if one.asked == failed else two
    assert answer.receipt.route.instance_id == (two if loser is one else one).name
    assert len(one.asked) == len(two.asked) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, ""),
        (grpc.StatusCode.FAILED_PRECONDITION, ""),
        (grpc.StatusCode.NOT_FOUND, ""),
        (grpc.StatusCode.INTERNAL, ""),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OTHER"),
    ],
)
async def test_what_another_instance_would_not_mend_is_not_tried_again(
    caller: Caller, model: str, serve: Serve, code: grpc.StatusCode, reason: str
) -> None:
    script, failed = failing(code, reason)
    async with serve(script, model) as one, serve(script, model) as two:
        told = await refused(caller.generate(chat("hello"), model=model, cache=BYPASS))
        assert (told.code, told.reason) == (code.name, code.name)
        assert [*one.asked, *two.asked] == failed


async def test_at_most_three_instances_are_tried(caller: Caller, model: str, serve: Serve) -> None:
    script, failed = failing(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED", times=99)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(serve(script, model))
        told = await refused(caller.generate(chat("hello"), model=model, cache=BYPASS))
    assert (told.code, told.reason) == ("UNAVAILABLE", "UPSTREAM_OVERLOADED")
    assert len(failed) == 3


async def test_a_single_instance_is_not_tried_twice(
    caller: Caller, model: str, serve: Serve
) -> None:
    script, failed = failing(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
    async with serve(script, model):
        told = await refused(caller.generate(chat("hello"), model=model, cache=BYPASS))
    assert (told.code, len(failed)) == ("UNAVAILABLE", 1)


async def test_capabilities_choose_and_who_lacks_them_all_is_told(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with (
        serve(echo, model, capabilities=["vision"]) as able,
        serve(echo, model) as other,
    ):
        wanted = {"model": model, "cache": BYPASS, "required_capabilities": ["vision"]}
        for number in range(3):
            receipt = (await caller.generate(chat(f"look {number}"), **wanted)).receipt
            assert receipt.route.instance_id == able.name
        assert not other.asked
        lacking = {**wanted, "required_capabilities": ["hearing"]}
        told = await refused(caller.generate(chat("listen"), **lacking))
    assert (told.code, told.reason, told.field) == (
        "FAILED_PRECONDITION",
        "CANNOT_SERVE",
        "options",
    )
    assert "hearing" in told.message
    assert told.retry_s is None


async def test_a_pick_can_be_explained_afterwards_and_before(
    caller: Caller, model: str, serve: Serve
) -> None:
    router = caller.api.router
    async with serve(echo, model) as one, serve(echo, model) as two:
        receipt = (await caller.generate(chat("hello"), model=model, cache=BYPASS)).receipt
        request = pb.ExplainRouteRequest(request_id=receipt.request_id)
        made = await router.ExplainRoute(request, metadata=caller.metadata)
        assert (made.instance_id, made.strategy) == (
            receipt.route.instance_id,
            "least_added_delay",
        )
        assert {row.instance_id for row in made.candidates} == {one.name, two.name}
        scores = [row.score for row in made.candidates]
        assert scores == sorted(scores)
        ahead = pb.ExplainRouteRequest(
            options=options(model=model), task=inference_pb2.Task(generate=chat("x" * 400))
        )
        planned = await router.ExplainRoute(ahead, metadata=caller.metadata)
        assert planned.instance_id in (one.name, two.name)
        # about four letters a token, and a few tokens for the turn
        assert 80 <= planned.estimated_tokens <= 120
        assert len(one.asked) + len(two.asked) == 1


async def test_the_instance_with_less_to_do_is_chosen(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> Pieces:
        if prompt_of(asked).startswith("slow"):
            await go_on.wait()
        yield said("done")

    async with serve(script, model) as one, serve(script, model) as two:
        running = [
            asyncio.create_task(caller.generate(chat(f"slow {n}"), model=model, cache=BYPASS))
            for n in range(2)
        ]
        await eventually(lambda: len(one.asked) + len(two.asked) == 2)
        assert (len(one.asked), len(two.asked)) == (1, 1)
        go_on.set()
        await asyncio.gather(*running)


async def test_a_repeatable_call_that_dawdles_is_hedged_and_the_loser_is_cancelled(
    caller: Caller, model: str, serve: Serve
) -> None:
    slow: list[Asked] = []

    async def script(asked: Asked) -> Pieces:
        if prompt_of(asked) == "dawdle" and not slow:
            slow.append(asked)
            await asyncio.Event().wait()
        yield embedded(1.0)

    async with serve(script, model) as one, serve(script, model) as two:
        for number in range(64):  # so many answers tell how long a call takes
            await caller.embed(f"text {number}", model=model, cache=BYPASS)
        answer = await caller.embed("dawdle", model=model, cache=BYPASS)
        assert answer.receipt.route.hedged
        assert answer.receipt.route.attempts == 2
        await eventually(lambda: [*one.cancelled, *two.cancelled] == slow)


async def test_a_conversation_is_never_asked_twice_however_long_it_takes(
    caller: Caller, model: str, serve: Serve
) -> None:
    """As above, but what is generated may not be computed a second time beside the first."""

    async def script(asked: Asked) -> Pieces:
        if prompt_of(asked) == "dawdle":
            await asyncio.sleep(0.3)  # far longer than the 64 calls before took
        yield said("done")

    async with serve(script, model) as one, serve(script, model) as two:
        for number in range(64):
            await caller.generate(chat(f"x {number}"), model=model, cache=BYPASS)
        answer = await caller.generate(chat("dawdle"), model=model, cache=BYPASS)
        dawdled = [asked for asked in (*one.asked, *two.asked) if prompt_of(asked) == "dawdle"]
        assert len(dawdled) == 1
    assert not answer.receipt.route.hedged
    assert answer.receipt.route.attempts == 1
