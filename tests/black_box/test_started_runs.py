"""Started runs: a budget that pauses the run, shares for subagents, and a cancel of the whole tree.

A call of `small` costs 13 micro-dollars; at most it may cost more, and that much is held for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status
from penstock.api.common.v1 import run_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2, runs_pb2
from penstock.testkit.eventually import eventually

from .calls import Api, Caller, broken, chat, refused
from .instance import Asked, Serve, echo, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
COST = 13
LOOK_UP = 2
"""Micro-dollars of asking the cache for likeness, where it may be asked."""
ROOM = 200
"""Micro-dollars that more than cover what one call is held for."""
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


async def never(asked: Asked) -> Pieces:
    yield inference_pb2.GenerateChunk(delta="so far")
    await asyncio.Event().wait()
    yield said("never")


def small() -> inference_pb2.GenerateTask:
    return chat("a", max_tokens=10)


async def start(
    caller: Caller, microusd: int = -1, parent: str = "", reserve: int = 0, **more: Any
) -> str:
    """Start a run that limits money, or one without a limit; returns its id."""
    limits = run_pb2.RunLimits(time_ms=more.pop("time_ms", 0))
    if microusd >= 0:
        limits.microusd = microusd
    kept = run_pb2.RunAmount(microusd=reserve)
    request = runs_pb2.StartRunRequest(
        parent_run_id=parent, limits=limits, reserve=kept, name="agent", **more
    )
    answer = await caller.api.router.StartRun(request, metadata=caller.metadata)
    return str(answer.run.id)


async def shown(caller: Caller, run_id: str) -> runs_pb2.GetRunResponse:
    request = runs_pb2.GetRunRequest(run_id=run_id)
    return await caller.api.router.GetRun(request, metadata=caller.metadata)


async def raised(caller: Caller, run_id: str, microusd: int) -> run_pb2.Run:
    limits = run_pb2.RunLimits(microusd=microusd)
    request = runs_pb2.RaiseRunRequest(run_id=run_id, limits=limits)
    return (await caller.api.router.RaiseRun(request, metadata=caller.metadata)).run


async def settled(caller: Caller, run_id: str, microusd: int) -> None:
    """Wait until the run has spent so much and holds nothing."""

    async def is_settled() -> bool:
        answer = await shown(caller, run_id)
        held = sum(run.held.microusd for run in answer.runs)
        return (answer.total_spent.microusd, held) == (microusd, 0)

    await eventually(is_settled)


async def run_of_refusal(call: Any) -> run_pb2.Run:
    """The run that a refusal carries."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    status = rpc_status.from_call(error.value)
    assert status is not None
    (packed,) = [each for each in status.details if each.Is(run_pb2.Run.DESCRIPTOR)]
    return run_pb2.Run.FromString(packed.value)


async def test_a_run_at_its_limit_is_paused_and_goes_on_when_it_is_raised(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model) as instance:
        run_id = await start(caller, ROOM)
        options = {"model": model, "cache": BYPASS, "run_id": run_id}
        await caller.generate(small(), **options)
        await settled(caller, run_id, COST)
        too_much = chat("b", max_tokens=ROOM)
        refusing = await run_of_refusal(caller.generate(too_much, **options))
        assert refusing.state == run_pb2.RUN_STATE_PAUSED
        assert (refusing.changed_by, refusing.spent.microusd) == ("limit", COST)
        assert refusing.wanted.microusd > ROOM
        told = await refused(caller.generate(too_much, **options))
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "RUN_BUDGET_EXHAUSTED")
        assert len(instance.asked) == 1
        assert (await raised(caller, run_id, 2_000)).state == run_pb2.RUN_STATE_RUNNING
        await caller.generate(too_much, **options)
        await settled(caller, run_id, 2 * COST)
        assert len(instance.asked) == 2


async def test_what_a_run_has_cost_is_shown_by_subagent_step_and_purpose(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        root = await start(caller)
        child = await start(caller, parent=root)
        task = small()
        for step in ("plan", "plan", "answer"):
            await caller.generate(task, model=model, cache=BYPASS, run_id=root, step=step)
        await caller.generate(task, model=model, run_id=child, step="search")
        await settled(caller, root, 4 * COST + LOOK_UP)

        async def reused() -> bool:
            again = await caller.generate(task, model=model, run_id=child, step="search")
            return again.receipt.cost.paid_microusd == 0

        await eventually(reused)
        await settled(caller, root, 4 * COST + LOOK_UP)
        request = runs_pb2.GetRunCostRequest(run_id=root)
        cost = await caller.api.router.GetRunCost(request, metadata=caller.metadata)
    assert [run.id for run in cost.runs] == [root, child]
    paid = {
        (row.run_id, row.step, row.kind): row.amount.microusd
        for row in cost.costs
        if row.amount.microusd
    }
    answer, look_up = run_pb2.RUN_COST_KIND_ANSWER, run_pb2.RUN_COST_KIND_LOOK_UP
    assert paid == {
        (root, "plan", answer): 2 * COST,
        (root, "answer", answer): COST,
        (child, "search", answer): COST,
        (child, "search", look_up): LOOK_UP,
    }
    assert run_pb2.RUN_COST_KIND_REUSED in {row.kind for row in cost.costs}
    assert (cost.total.microusd, cost.estimated_microusd) == (4 * COST + LOOK_UP, 0)


async def test_a_reserve_is_left_for_the_final_answer(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        run_id = await start(caller, ROOM, reserve=ROOM)
        options = {"model": model, "cache": BYPASS, "run_id": run_id}
        assert (await refused(caller.generate(small(), **options))).reason == "RUN_BUDGET_EXHAUSTED"
        await caller.generate(small(), **options, run_final=True)
        await settled(caller, run_id, COST)


async def test_a_subagent_spends_its_share_and_gives_back_the_rest(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        root = await start(caller, 2 * ROOM)
        child = await start(caller, ROOM + 50, parent=root)
        assert child.startswith(root + ".")
        told = await refused(start(caller, ROOM, parent=root))
        assert told.reason == "RUN_BUDGET_EXHAUSTED"
        await caller.generate(small(), model=model, cache=BYPASS, run_id=child)
        await settled(caller, root, COST)
        end = runs_pb2.EndRunRequest(run_id=child)
        ended = await caller.api.router.EndRun(end, metadata=caller.metadata)
        assert ended.run.state == run_pb2.RUN_STATE_ENDED
        assert (await shown(caller, root)).runs[0].shared.microusd == COST
        late = refused(caller.generate(small(), model=model, cache=BYPASS, run_id=child))
        told = await late
        assert (told.code, told.reason) == ("FAILED_PRECONDITION", "RUN_ENDED")
        await start(caller, 2 * ROOM - COST, parent=root)


async def test_a_paused_run_takes_no_call_until_it_is_resumed(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        run_id = await start(caller)
        pause = runs_pb2.PauseRunRequest(run_id=run_id, reason="to look at it")
        await caller.api.router.PauseRun(pause, metadata=caller.metadata)
        options = {"model": model, "cache": BYPASS, "run_id": run_id}
        told = await refused(caller.generate(small(), **options))
        assert (told.code, told.reason) == ("FAILED_PRECONDITION", "RUN_PAUSED")
        assert (await shown(caller, run_id)).runs[0].reason == "to look at it"
        await raised(caller, run_id, 0)
        await caller.generate(small(), **options)


async def test_a_cancel_ends_the_calls_of_the_whole_tree_open_streams_included(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(never, model, concurrency=4) as instance:
        root = await start(caller)
        child = await start(caller, parent=root)
        options = {"model": model, "cache": BYPASS}
        whole = asyncio.create_task(refused(caller.generate(small(), **options, run_id=root)))
        stream = asyncio.create_task(broken(caller.stream(small(), **options, run_id=child)))
        await eventually(lambda: len(instance.asked) == 2)
        cancel = router_pb2.CancelRunRequest(run_id=root)
        answer = await caller.api.router.CancelRun(cancel, metadata=caller.metadata)
        assert answer.cancelled_calls == 2
        for told in (await whole, (await stream)[1]):
            assert (told.code, told.reason) == ("CANCELLED", "RUN_CANCELLED")
        await eventually(lambda: len(instance.cancelled) == 2)
        assert (await refused(start(caller, parent=child))).reason == "RUN_CANCELLED"
        states = {run.state for run in (await shown(caller, root)).runs}
        assert states == {run_pb2.RUN_STATE_CANCELLED}


async def test_when_the_time_of_a_run_is_up_its_next_call_pauses_it(
    caller: Caller, model: str, serve: Serve
) -> None:
    async with serve(echo, model):
        run_id = await start(caller, time_ms=1)
        told = await refused(caller.generate(small(), model=model, cache=BYPASS, run_id=run_id))
        assert told.reason == "RUN_BUDGET_EXHAUSTED"
        assert "time" in told.message


async def test_a_start_with_a_token_may_be_repeated_and_runs_are_listed(caller: Caller) -> None:
    first = await start(caller, 5, idempotency_token="t")
    assert await start(caller, 5, idempotency_token="t") == first
    assert await start(caller, 5) != first
    request = runs_pb2.ListRunsRequest(limit=10)
    answer = await caller.api.router.ListRuns(request, metadata=caller.metadata)
    assert first in [run.id for run in answer.runs]
    assert len(answer.runs) == 2


async def test_a_run_is_there_for_the_key_that_started_it_only(
    api: Api, model: str, serve: Serve
) -> None:
    ours, theirs = api.caller(), api.caller()
    run_id = await start(ours, ROOM)
    cost = runs_pb2.GetRunCostRequest(run_id=run_id)
    for call in (
        shown(theirs, run_id),
        start(theirs, 1, parent=run_id),
        theirs.api.router.GetRunCost(cost, metadata=theirs.metadata),
    ):
        assert (await refused(call)).code == "NOT_FOUND"
    cancel = router_pb2.CancelRunRequest(run_id=run_id)
    told = await refused(theirs.api.router.CancelRun(cancel, metadata=theirs.metadata))
    assert told.code == "NOT_FOUND"
    assert (await shown(ours, run_id)).runs[0].state == run_pb2.RUN_STATE_RUNNING


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (runs_pb2.StartRunRequest(limits=run_pb2.RunLimits(tokens=-1)), "limits.tokens"),
        (runs_pb2.StartRunRequest(reserve=run_pb2.RunAmount(calls=1)), "reserve.calls"),
        (runs_pb2.StartRunRequest(name="x" * 129), "name"),
        (runs_pb2.StartRunRequest(idempotency_token="x" * 129), "idempotency_token"),
        (runs_pb2.GetRunRequest(), "run_id"),
        (runs_pb2.GetRunCostRequest(), "run_id"),
        (runs_pb2.RaiseRunRequest(), "run_id"),
        (runs_pb2.PauseRunRequest(), "run_id"),
        (runs_pb2.EndRunRequest(), "run_id"),
    ],
)
async def test_a_bad_field_is_named(caller: Caller, request_: Any, field: str) -> None:
    method = type(request_).__name__.removesuffix("Request")
    call = getattr(caller.api.router, method)
    told = await refused(call(request_, metadata=caller.metadata))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", field)
