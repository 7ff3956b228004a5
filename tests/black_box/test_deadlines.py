"""What travels with a call: who, how urgent, how long; and what happens when time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import TIMEOUT_S, Caller, chat, options, refused
from .instance import Asked, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def test_low_priority_calls_reach_the_instance_with_their_priority(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        await caller.generate(chat("a"), model=model, cache=BYPASS)
        await caller.generate(chat("b"), model=model, cache=BYPASS, priority="PRIORITY_CRITICAL")
        patient = caller.api.caller("patient")  # a key with the ceiling `low`
        await patient.generate(chat("c"), model=model, cache=BYPASS, priority="PRIORITY_HIGH")
    given = [asked.context.priority for asked in instance.asked]
    assert given == [
        common_pb2.PRIORITY_NORMAL,
        common_pb2.PRIORITY_CRITICAL,
        common_pb2.PRIORITY_LOW,
    ]


async def test_an_instance_is_told_who_calls_and_how_long_it_may_take(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        answer = await caller.generate(
            chat("a"), timeout=9.0, model=model, cache=BYPASS, run_id="run-7", step="think"
        )
    (asked,) = instance.asked
    assert asked.context.principal == common_pb2.Principal(
        organisation=caller.key, key_id=caller.key
    )
    assert (asked.context.run_id, asked.context.step) == ("run-7", "think")
    assert 0 < asked.context.remaining_ms < 9_100
    version, trace_id, _, flags = asked.context.traceparent.split("-")
    assert (version, trace_id, flags) == ("00", answer.receipt.trace_id, "01")


async def test_a_call_without_a_deadline_gets_thirty_seconds(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        request = pb.GenerateRequest(task=chat("a"), options=options(model=model))
        await caller.api.router.Generate(request, metadata=caller.metadata)
    assert 25_000 < instance.asked[0].context.remaining_ms <= 30_000


async def test_time_that_is_up_ends_the_call_at_the_instance_too(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def never(asked: Asked) -> Pieces:
        await asyncio.Event().wait()
        yield said("never")

    async with serve(never, model) as instance:
        told = await refused(caller.generate(chat("a"), timeout=0.4, model=model, cache=BYPASS))
        assert told.code == "DEADLINE_EXCEEDED"
        await eventually(lambda: len(instance.cancelled) == 1)


async def test_a_caller_who_leaves_ends_the_call_at_the_instance(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def never(asked: Asked) -> Pieces:
        await asyncio.Event().wait()
        yield said("never")

    async with serve(never, model) as instance:
        request = pb.GenerateRequest(task=chat("a"), options=options(model=model))
        call = caller.api.router.Generate(request, metadata=caller.metadata, timeout=TIMEOUT_S)
        await eventually(lambda: len(instance.asked) == 1)
        call.cancel()
        await eventually(lambda: len(instance.cancelled) == 1)
