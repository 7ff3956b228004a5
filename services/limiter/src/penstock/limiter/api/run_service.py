"""The limiter's RPCs for started agent runs; `LimiterServicer` has them besides its own."""

from __future__ import annotations

from penstock.api.limiter.v1 import runs_pb2 as pb
from penstock.limiter.api.messages import check_id, store_needed
from penstock.limiter.api.run_messages import (
    checked_budget,
    checked_change,
    checked_costs,
    checked_hold,
    cost_message,
    run_fault,
    run_key,
    run_message,
    unknown_run,
)
from penstock.limiter.counters import Amounts
from penstock.limiter.run_trees import RunReply, RunVerdict
from penstock.limiter.store.run_store import RunStore
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock

DEFAULT_LISTED, MAX_LISTED = 100, 1_000
STORE_WAIT_SHARE, MAX_STORE_WAIT_S = 0.8, 2.0
"""Part of a caller's time that may be spent waiting for a slow or lost store, and the most of it.
"""


class RunRpcs:
    """Opens runs, holds and settles their calls, and changes them.

    Without the store every RPC answers UNAVAILABLE: a budget of a run is exact or not given.
    """

    def __init__(self, runs: RunStore, hold_ms: int, clock: Clock) -> None:
        self._runs = runs
        self._hold_ms = hold_ms
        self._run_clock = clock

    async def OpenRun(self, request: pb.OpenRunRequest, call: Call) -> pb.OpenRunResponse:
        """Start a run or open a child."""
        key, budget = run_key(call, request.run_id), checked_budget(request)
        with store_needed():
            reply = await self._runs.open(key, request.parent_id, budget)
        _check_found(reply, request.parent_id)
        _raise_refusal(reply, request.run_id, budget.limits)
        return pb.OpenRunResponse(run=run_message(*reply.runs[0]))

    async def HoldRun(self, request: pb.HoldRunRequest, call: Call) -> pb.HoldRunResponse:
        """Hold what a call of a run may cost."""
        check_id("hold_id", request.hold_id)
        key, hold = run_key(call, request.run_id), checked_hold(request, self._hold_ms)
        left_s = call.remaining_s(self._run_clock.monotonic())
        wait_s = min(MAX_STORE_WAIT_S, STORE_WAIT_SHARE * max(0.0, left_s))
        with store_needed():
            reply = await self._runs.hold(key, hold, wait_s)
        if reply.verdict is RunVerdict.SETTLED:
            message = f"the call {request.hold_id} of run {key.run_id} was settled before"
            raise Fault(Reason.SUPERSEDED, message)
        _raise_refusal(reply, request.run_id, hold.amounts)
        return pb.HoldRunResponse(started=reply.verdict is RunVerdict.OK)

    async def SettleRun(self, request: pb.SettleRunRequest, call: Call) -> pb.SettleRunResponse:
        """End a hold with what was spent."""
        check_id("hold_id", request.hold_id)
        key, parts = run_key(call, request.run_id), checked_costs(request.costs)
        with store_needed():
            reply = await self._runs.settle(key, request.hold_id, parts)
        return pb.SettleRunResponse(settled=reply.verdict is RunVerdict.OK)

    async def ChangeRun(self, request: pb.ChangeRunRequest, call: Call) -> pb.ChangeRunResponse:
        """Raise, pause, cancel or end a run."""
        key, change = run_key(call, request.run_id), checked_change(request, call.principal.key_id)
        with store_needed():
            reply = await self._runs.change(key, change)
        _check_found(reply, request.run_id)
        _raise_refusal(reply, request.run_id, change.limits)
        return pb.ChangeRunResponse(runs=[run_message(*each) for each in reply.runs])

    async def ReadRun(self, request: pb.ReadRunRequest, call: Call) -> pb.ReadRunResponse:
        """Show a run and those below it."""
        key = run_key(call, request.run_id)
        with store_needed():
            reply = await self._runs.read(key)
        _check_found(reply, request.run_id)
        _raise_refusal(reply, request.run_id, ())
        return pb.ReadRunResponse(runs=[run_message(*each) for each in reply.runs])

    async def ReadRunCost(
        self, request: pb.ReadRunCostRequest, call: Call
    ) -> pb.ReadRunCostResponse:
        """Show what a run and those below it have cost."""
        key = run_key(call, request.run_id)
        with store_needed():
            reply = await self._runs.cost(key)
        _check_found(reply, request.run_id)
        _raise_refusal(reply, request.run_id, ())
        runs = [run_message(*each) for each in reply.runs]
        return pb.ReadRunCostResponse(runs=runs, costs=[cost_message(row) for row in reply.costs])

    async def LatestRuns(self, request: pb.LatestRunsRequest, call: Call) -> pb.LatestRunsResponse:
        """Show the runs that the caller's key has used last."""
        organisation, owner, _ = run_key(call, "any")
        count = min(request.limit or DEFAULT_LISTED, MAX_LISTED)
        with store_needed():
            reply = await self._runs.latest(organisation, owner, count)
        return pb.LatestRunsResponse(runs=[run_message(*each) for each in reply.runs])


def _raise_refusal(reply: RunReply, run_id: str, asked: Amounts) -> None:
    fault = run_fault(reply, run_id, asked)
    if fault is not None:
        raise fault


def _check_found(reply: RunReply, run_id: str) -> None:
    """Raise NOT_FOUND where the operation needs a run that was started."""
    if reply.verdict is RunVerdict.UNKNOWN:
        raise unknown_run(run_id)
