"""Cancelling a started run while the limiter, which keeps it, does not answer."""

from __future__ import annotations

import asyncio

from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
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
        states = [(await run_rig.run(run_id)).state for run_id in (root, child)]
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

    async def is_reached() -> run_pb2.Run:
        return await run_rig.run(root)

    run = await eventually(is_reached, timeout_s=30)
    assert run.state == run_pb2.RUN_STATE_RUNNING
    call.cancel()
    await asyncio.wait([call])
