"""Answers that several callers share while they are in flight, and what is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .caching import COALESCED, EXACT, MISS, kept
from .calls import Api, Caller, chat
from .instance import Asked, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def test_requests_in_flight_share_one_answer(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> Pieces:
        await go_on.wait()
        yield said("together")

    async with serve(script, model, concurrency=2) as instance:
        calls = [asyncio.create_task(caller.generate(chat("hello"), model=model)) for _ in range(5)]
        await eventually(lambda: len(instance.asked) == 1)
        bypass = asyncio.create_task(
            caller.generate(chat("hello"), model=model, cache={"bypass": True})
        )
        await eventually(lambda: len(instance.asked) == 2)
        go_on.set()
        answers = await asyncio.gather(*calls)
        await bypass
        assert len(instance.asked) == 2
    assert {answer.result.message.content for answer in answers} == {"together"}
    outcomes = sorted(answer.receipt.cache.outcome for answer in answers)
    assert outcomes == [MISS, COALESCED, COALESCED, COALESCED, COALESCED]
    follower = next(item.receipt for item in answers if item.receipt.cache.outcome == COALESCED)
    assert follower.cache.rule == "coalesced"
    assert follower.cost == common_pb2.Cost(saved_microusd=13, full_price_microusd=13)
    assert [row.technique for row in follower.savings] == ["coalesced"]


async def test_a_stream_in_flight_is_followed_piece_by_piece(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> Pieces:
        yield inference_pb2.GenerateChunk(delta="first")
        await go_on.wait()
        yield inference_pb2.GenerateChunk(delta=" second")
        yield said("first second")

    async def read(call: Any) -> tuple[str, common_pb2.Receipt]:
        messages = [message async for message in call]
        return "".join(message.chunk.delta for message in messages), messages[-1].receipt

    async with serve(script, model) as instance:
        leader = asyncio.create_task(read(caller.stream(chat("hello"), model=model)))
        await eventually(lambda: len(instance.asked) == 1)
        follower = asyncio.create_task(read(caller.stream(chat("hello"), model=model)))
        go_on.set()
        (one, led), (two, followed) = await leader, await follower
        assert len(instance.asked) == 1
    assert one == two == "first second"
    assert led.cache.outcome == MISS
    assert followed.cache.outcome in (COALESCED, EXACT)
    assert followed.cost.paid_microusd == 0


async def test_a_kept_answer_streams_as_one_piece(caller: Caller, model: str, serve: Serve) -> None:
    async with serve(echo, model) as instance:
        await kept(caller, instance, "hello", model=model)
        messages = [item async for item in caller.stream(chat("hello"), model=model)]
    assert [item.chunk.delta for item in messages] == ["hello", ""]
    assert messages[0].chunk.finish_reason == inference_pb2.FINISH_REASON_STOP
    assert messages[-1].receipt.cache.outcome == EXACT


async def test_a_follower_of_a_call_that_fails_goes_by_itself(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def script(asked: Asked) -> Pieces:
        if asked.context.remaining_ms < 2_000:
            await asyncio.Event().wait()
        yield said("mine")

    async with serve(script, model, concurrency=2) as instance:
        hurried = asyncio.create_task(caller.generate(chat("hello"), timeout=1.0, model=model))
        await eventually(lambda: len(instance.asked) == 1)
        answer = await caller.generate(chat("hello"), model=model)
        assert answer.result.message.content == "mine"
        assert answer.receipt.cache.outcome == MISS
        await asyncio.gather(hurried, return_exceptions=True)


async def test_an_answer_found_wrong_is_not_given_again(
    caller: Caller, model: str, serve: Serve
) -> None:
    router = caller.api.router
    async with serve(echo, model) as instance:
        await kept(caller, instance, "hello", model=model)

        async def judged() -> bool:
            """The hit must be the cache's: the router's own copy is nobody's to quarantine."""
            hit = await caller.generate(chat("hello"), model=model)
            verdict = pb.SendFeedbackRequest(request_id=hit.receipt.request_id, correct=False)
            return (await router.SendFeedback(verdict, metadata=caller.metadata)).quarantined

        await eventually(judged)
        asked = len(instance.asked)
        answer = await caller.generate(chat("hello"), model=model)
        assert answer.receipt.cache.outcome == MISS
        assert len(instance.asked) == asked + 1


async def test_entries_are_removed_by_tag_and_only_the_tenants_own(
    api: Api, model: str, serve: Serve
) -> None:
    ours, theirs = api.caller(), api.caller()
    async with serve(echo, model) as instance:
        for caller in (ours, theirs):
            for tag in ("red", "blue"):
                await kept(caller, instance, tag, model=model, cache={"tags": [tag]})
        request = cache_pb2.InvalidateRequest(tags=["red"])
        answer = await api.cache.Invalidate(request, metadata=api.on_behalf(ours.key))
        assert answer.removed == 1

        async def gone() -> None:
            """The router's copy may serve for a second more."""
            answer = await ours.generate(
                chat("red"), model=model, cache={"tags": ["red"], "no_store": True}
            )
            assert answer.receipt.cache.outcome == MISS

        await eventually(gone, every_s=0.1)
        for caller, tag in ((ours, "blue"), (theirs, "red"), (theirs, "blue")):
            answer = await caller.generate(chat(tag), model=model)
            assert answer.receipt.cache.outcome == EXACT


async def test_figures_are_the_tenants_own(caller: Caller, model: str, serve: Serve) -> None:
    api = caller.api
    async with serve(echo, model) as instance:
        await kept(caller, instance, "hello", model=model)
    request = cache_pb2.GetStatsRequest()

    async def counted() -> None:
        """An answer is shared before it is written."""
        stats = await api.cache.GetStats(request, metadata=api.on_behalf(caller.key))
        assert stats.lookups["miss: nothing near"] == 1
        assert stats.entries == 1
        assert stats.bytes > 0

    await eventually(counted)
    other = await api.cache.GetStats(request, metadata=api.on_behalf(api.system.fresh_tenant()))
    assert (dict(other.lookups), other.entries, other.bytes) == ({}, 0, 0)
