"""An agent run as a unit: one deadline, one spending limit, one cancel; and whose run it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, Caller, broken, chat, refused
from .instance import Asked, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def never(asked: Asked) -> Pieces:
    await asyncio.Event().wait()
    yield said("never")


async def cancel(caller: Caller, run_id: str) -> pb.CancelRunResponse:
    request = pb.CancelRunRequest(run_id=run_id)
    return await caller.api.router.CancelRun(request, metadata=caller.metadata)


async def test_a_run_that_has_spent_its_money_is_refused(
    caller: Caller, model: str, serve: Serve
) -> None:
    """A call costs 13 micro-dollars; the run may cost 20, and the first call to say so counts."""
    async with serve(echo, model):
        run = {"model": model, "cache": BYPASS, "run_id": "spends"}
        await caller.generate(chat("a"), **run, run_max_cost_microusd=20)
        await caller.generate(chat("b"), **run, run_max_cost_microusd=1_000)
        told = await refused(caller.generate(chat("c"), **run))
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "RUN_BUDGET_EXHAUSTED")
        assert told.retry_s is None
        other = {**run, "run_id": "spends-not"}
        assert (await caller.generate(chat("d"), **other)).receipt.run_id == "spends-not"


async def test_the_deadline_of_a_run_ends_its_calls(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(never, model) as instance:
        run = {"model": model, "cache": BYPASS, "run_id": "hurries"}
        told = await refused(caller.generate(chat("a"), **run, run_deadline_ms=400))
        assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "RUN_DEADLINE")
        await eventually(lambda: len(instance.cancelled) == 1)
        # later values change nothing: the run's time is up
        told = await refused(caller.generate(chat("b"), **run, run_deadline_ms=60_000))
        assert told.code == "DEADLINE_EXCEEDED"


async def test_the_time_left_of_a_run_travels_with_each_of_its_calls(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        run = {"model": model, "cache": BYPASS, "run_id": "has-time"}
        await caller.generate(chat("a"), **run, run_deadline_ms=5_000)
        await caller.generate(chat("b"), **run)
    left_ms = [asked.context.remaining_ms for asked in instance.asked]
    assert 0 < left_ms[1] <= left_ms[0] <= 5_000


async def test_cancelling_a_run_ends_what_is_in_flight_and_what_comes_later(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(never, model, concurrency=4) as instance:
        run = {"model": model, "cache": BYPASS, "run_id": "stops"}
        whole = asyncio.create_task(refused(caller.generate(chat("a"), **run)))
        stream = asyncio.create_task(broken(caller.stream(chat("b"), **run)))
        await eventually(lambda: len(instance.asked) == 2)
        assert (await cancel(caller, "stops")).cancelled_calls == 2
        for told in (await whole, (await stream)[1]):
            assert (told.code, told.reason) == ("CANCELLED", "RUN_CANCELLED")
        await eventually(lambda: len(instance.cancelled) == 2)
        told = await refused(caller.generate(chat("c"), **run))
        assert (told.code, told.reason) == ("CANCELLED", "RUN_CANCELLED")


async def test_a_run_of_the_same_name_is_another_organisations_own(
    api: Api, model: str, serve: Serve
) -> None:
    ours, theirs = api.caller(), api.caller()
    async with serve(echo, model):
        run = {"model": model, "cache": BYPASS, "run_id": "shared-name"}
        await cancel(ours, "shared-name")
        assert (await refused(ours.generate(chat("a"), **run))).reason == "RUN_CANCELLED"
        assert (await theirs.generate(chat("b"), **run)).receipt.run_id == "shared-name"


async def test_cancelling_a_run_cancels_its_jobs(caller: Caller, model: str, serve: Serve) -> None:
    async with serve(never, model) as instance:
        task = inference_pb2.Task(generate=chat("a"))
        job = await caller.submit(task, {"model": model, "run_id": "job-run"})
        await eventually(lambda: len(instance.asked) == 1)
        answer = await cancel(caller, "job-run")
        assert answer.cancelled_calls == 1

        async def ended() -> bool:
            return (await caller.job(job.id)).state == pb.JOB_STATE_CANCELLED

        await eventually(ended)
        await eventually(lambda: len(instance.cancelled) == 1)
