"""Work for callers that do not wait: accepted, watched, cancelled, ended once, nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.testkit.eventually import eventually

from .calls import Api, Caller, Counted, chat, refused
from .instance import Asked, Refuse, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]
QUEUED, RUNNING = pb.JOB_STATE_QUEUED, pb.JOB_STATE_RUNNING
SUCCEEDED, FAILED = pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED
CANCELLED = pb.JOB_STATE_CANCELLED


def work(prompt: str) -> inference_pb2.Task:
    return inference_pb2.Task(generate=chat(prompt))


async def ended(caller: Caller, job_id: str) -> pb.Job:
    """The job once it has ended."""

    async def look() -> pb.Job:
        job = await caller.job(job_id)
        assert job.state in (SUCCEEDED, FAILED, CANCELLED)
        return job

    return await eventually(look)


async def test_a_job_ends_with_its_result_and_receipt(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        job = await caller.submit(work("later"), {"model": model, "run_id": "run-9"})
        assert len(job.id) == 32
        assert job.state in (QUEUED, RUNNING)
        assert job.submitted_unix_ms > 1_700_000_000_000
        done = await ended(caller, job.id)
    assert (done.state, done.attempts) == (SUCCEEDED, 1)
    assert done.result.generate.message.content == "later"
    assert (done.receipt.model, done.receipt.run_id) == (model, "run-9")
    assert done.receipt.cost.full_price_microusd == 13
    assert done.ended_unix_ms >= done.submitted_unix_ms == job.submitted_unix_ms
    assert not done.HasField("status")

    async def booked() -> None:
        assert (await caller.api.ledger(caller.key))["all-tokens"] == Counted(10)

    await eventually(booked)

    async def accounted() -> None:
        request = telemetry_pb2.GetCostsRequest(by=telemetry_pb2.COST_BY_RUN, tenant=caller.key)
        api = caller.api
        rows = (await api.telemetry.GetCosts(request, metadata=api.token)).rows
        found = [(row.key, row.calls, row.full_price_microusd) for row in rows]
        assert found == [("run-9", 1, 13)]

    await eventually(accounted)


async def test_a_job_that_fails_says_what_went_wrong(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def mistaken(asked: Asked) -> Pieces:
        raise Refuse(grpc.StatusCode.INVALID_ARGUMENT, message="too odd")
        yield  # makes it a generator

    async with serve(mistaken, model):
        job = await caller.submit(work("x"), {"model": model})
        done = await ended(caller, job.id)
    assert done.state == FAILED
    status = done.status
    assert (status.code, status.reason, status.message) == (3, "INVALID_ARGUMENT", "too odd")
    assert not done.HasField("result")


async def test_a_job_outlasts_what_passes(caller: Caller, model: str, serve: Serve) -> None:
    """An instance that is away for a moment is waited for."""
    failed: list[Asked] = []

    async def script(asked: Asked) -> Pieces:
        if not failed:
            failed.append(asked)
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
        yield said("at last")

    async with serve(script, model):
        job = await caller.submit(work("x"), {"model": model})
        done = await ended(caller, job.id)
    assert (done.state, done.attempts) == (SUCCEEDED, 1)


async def test_a_job_whose_time_is_up_fails(caller: Caller, model: str, serve: Serve) -> None:
    async def never(asked: Asked) -> Pieces:
        await asyncio.Event().wait()
        yield said("never")

    async with serve(never, model):
        job = await caller.submit(work("x"), {"model": model}, deadline_ms=400)
        done = await ended(caller, job.id)
    assert (done.state, done.status.code) == (FAILED, 4)


async def test_a_job_above_its_ceiling_of_cost_fails_at_once(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        job = await caller.submit(work("x"), {"model": model, "max_cost_microusd": 1})
        done = await ended(caller, job.id)
    assert (done.state, done.status.reason, done.attempts) == (FAILED, "COST_CEILING", 1)
    assert not instance.asked


async def test_watching_shows_each_state_once_until_the_end(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> Pieces:
        await go_on.wait()
        yield said("done")

    async with serve(script, model) as instance:
        job = await caller.submit(work("x"), {"model": model})
        await eventually(lambda: len(instance.asked) == 1)
        request = pb.WatchJobRequest(id=job.id)
        call = caller.api.router.WatchJob(request, metadata=caller.metadata, timeout=20)
        states = [(await call.read()).job.state]
        go_on.set()
        while (message := await call.read()) is not grpc.aio.EOF:
            states.append(message.job.state)
    assert states == [RUNNING, SUCCEEDED]


async def test_a_cancelled_job_stops_at_the_instance_and_stays_cancelled(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def never(asked: Asked) -> Pieces:
        await asyncio.Event().wait()
        yield said("never")

    router = caller.api.router
    async with serve(never, model) as instance:
        job = await caller.submit(work("x"), {"model": model})
        await eventually(lambda: len(instance.asked) == 1)
        request = pb.CancelJobRequest(id=job.id)
        first = await router.CancelJob(request, metadata=caller.metadata)
        again = await router.CancelJob(request, metadata=caller.metadata)
        assert (first.job.state, again.job) == (CANCELLED, first.job)
        await eventually(lambda: len(instance.cancelled) == 1)


async def test_the_same_token_gives_the_first_job(
    caller: Caller, api: Api, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        one = await caller.submit(work("a"), {"model": model}, idempotency_token="t-1")
        two = await caller.submit(work("b"), {"model": model}, idempotency_token="t-1")
        assert one.id == two.id
        await ended(caller, one.id)
        stranger = api.caller()
        other = await stranger.submit(work("c"), {"model": model}, idempotency_token="t-1")
        assert other.id != one.id
        await ended(stranger, other.id)
        assert len(instance.asked) == 2


async def test_a_job_is_nobody_elses(caller: Caller, api: Api, model: str, serve: Serve) -> None:
    stranger = api.caller()
    async with serve(echo, model):
        job = await caller.submit(work("a"), {"model": model})
        await ended(caller, job.id)
        told = await refused(stranger.job(job.id))
        assert (told.code, told.field) == ("NOT_FOUND", "id")
        request = pb.CancelJobRequest(id=job.id)
        told = await refused(api.router.CancelJob(request, metadata=stranger.metadata))
        assert told.code == "NOT_FOUND"


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/x", "https://elsewhere.example.com/x", "https://10.0.0.1/"]
)
async def test_a_callback_goes_only_where_the_operator_allows(caller: Caller, url: str) -> None:
    told = await refused(caller.submit(work("a"), {"model": "chat"}, callback_url=url))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", "callback_url")


@pytest.mark.parametrize("deadline_ms", [-1, 8 * 24 * 3_600_000])
async def test_a_deadline_out_of_bounds_is_refused(caller: Caller, deadline_ms: int) -> None:
    told = await refused(caller.submit(work("a"), {"model": "chat"}, deadline_ms=deadline_ms))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", "deadline_ms")
