"""Cancelling a started run while the limiter, which keeps it, does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError
from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.runs.cancels import MAX_REPEATED, RunCancels
from penstock.router.runs.runs import Runs
from penstock.router.runs.started_runs import StartedRuns
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.rpc.run_ids import started_id
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

from ..rig import fault_of
from ..routed import SCOPED_METADATA
from .conftest import SMALL, RunRig, Worker


async def hanging(rig: RunRig) -> Worker:
    """An instance that answers nothing."""
    worker = Worker()
    worker.hangs = True
    await rig.routed.join("a", worker, SMALL, concurrency=8)
    return worker


def begun(rig: RunRig, *run_ids: str) -> list[asyncio.Task[Fault]]:
    """Calls of these runs, which end in failures."""
    texts = (f"text {number}" for number in range(len(run_ids)))
    return [
        asyncio.create_task(fault_of(rig.embed(run_id, text=text)))
        for run_id, text in zip(run_ids, texts, strict=True)
    ]


async def cancel(rig: RunRig, run_id: str, metadata: object = None) -> Fault:
    request = pb.CancelRunRequest(run_id=run_id)
    given = metadata or rig.routed.metadata
    return await fault_of(rig.routed.stub.CancelRun(request, metadata=given, timeout=20))


async def reached(rig: RunRig, run_id: str) -> run_pb2.Run:
    """The run; asserts that the limiter is reached, which was cut off a moment ago."""
    try:
        return await rig.run(run_id)
    except AioRpcError as refused:
        assert refused.code() is not StatusCode.UNAVAILABLE
        raise


async def test_calls_in_flight_end_at_once_and_the_rest_when_the_limiter_answers(
    run_rig: RunRig,
) -> None:
    # given a run, a child and another run, each with a call in flight
    worker = await hanging(run_rig)
    root = await run_rig.start()
    child, other = await run_rig.start(parent=root), await run_rig.start()
    *own, foreign = begun(run_rig, root, child, other)
    await eventually(lambda: worker.asked == 3)
    # when the limiter hangs and the run is cancelled
    run_rig.connection.stall()
    told = await cancel(run_rig, root)
    # then its calls have ended, and the caller knows what was done and what was not
    assert told.reason is Reason.LIMITS_UNAVAILABLE
    assert "were cancelled: 2;" in told.message
    assert told.retry_after_s > 0
    assert [fault.reason for fault in await asyncio.gather(*own)] == [Reason.RUN_CANCELLED] * 2
    assert not foreign.done()
    # and the tree is cancelled once the limiter answers
    run_rig.connection.cut()

    async def is_cancelled() -> bool:
        states = [(await reached(run_rig, run_id)).state for run_id in (root, child)]
        return states == [run_pb2.RUN_STATE_CANCELLED] * 2

    await eventually(is_cancelled, timeout_s=30)
    assert (await run_rig.run(other)).state == run_pb2.RUN_STATE_RUNNING
    foreign.cancel()
    await asyncio.wait([foreign])


async def test_another_keys_cancel_ends_nothing(run_rig: RunRig) -> None:
    worker = await hanging(run_rig)
    root = await run_rig.start()
    (call,) = begun(run_rig, root)
    await eventually(lambda: worker.asked == 1)
    run_rig.connection.stall()
    told = await cancel(run_rig, root, SCOPED_METADATA)
    assert "were cancelled: 0;" in told.message
    assert not call.done()
    # and what is repeated to the limiter is refused there
    run_rig.connection.cut()

    run = await eventually(lambda: reached(run_rig, root), timeout_s=30)
    assert run.state == run_pb2.RUN_STATE_RUNNING
    call.cancel()
    await asyncio.wait([call])


class LostLimiter:
    """A peer that never answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, method: str, request: Any, call: Call) -> Any:
        """See Peer."""
        self.asked += 1
        raise unavailable("it is gone")

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        """See Peer."""


async def test_at_most_so_many_cancels_are_repeated_and_the_oldest_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    limiter = LostLimiter()
    cancels = RunCancels(StartedRuns(limiter), Runs(clock), None, clock)
    caller = Call(Principal("acme", key_id="k1"))
    run_ids = [started_id("", str(number)) for number in range(MAX_REPEATED + 1)]
    for run_id in (*run_ids, run_ids[-1]):
        with pytest.raises(Fault) as told:
            await cancels.cancel(run_id, caller)
        assert told.value.reason is Reason.LIMITS_UNAVAILABLE
    lost = [record.getMessage() for record in caplog.records]
    assert lost == [f"too many cancels wait for the limiter: that of run {run_ids[0]} is lost"]
    await cancels.close()
    assert len(caplog.records) == 1 + MAX_REPEATED


async def test_a_run_that_nobody_can_have_started_is_cancelled_without_the_limiter() -> None:
    clock = FakeClock()
    limiter = LostLimiter()
    cancels = RunCancels(StartedRuns(limiter), Runs(clock), None, clock)
    assert await cancels.cancel("agent-7", Call(Principal("acme"))) == (0, 0)
    assert limiter.asked == 0
    await cancels.close()
