"""The public RPCs of started runs; `RouterServicer` has them besides its own."""

from __future__ import annotations

from penstock.api.common.v1 import run_pb2
from penstock.api.limiter.v1 import runs_pb2 as limiter_pb
from penstock.api.router.v1 import router_pb2
from penstock.api.router.v1 import runs_pb2 as pb
from penstock.router.runs.cancels import RunCancels
from penstock.router.runs.run_costs import cost_of_runs
from penstock.router.runs.started_runs import StartedRuns
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid


class RunRpcs:
    """Starts, shows and changes runs of the caller's key."""

    def __init__(self, started: StartedRuns, cancels: RunCancels) -> None:
        self._started = started
        self._cancels = cancels

    async def StartRun(self, request: pb.StartRunRequest, call: Call) -> pb.StartRunResponse:
        return pb.StartRunResponse(run=await self._started.start(request, call))

    async def GetRun(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        runs = await self._started.get(request.run_id, call)
        total = run_pb2.RunAmount(
            calls=sum(run.spent.calls for run in runs),
            tokens=sum(run.spent.tokens for run in runs),
            microusd=sum(run.spent.microusd for run in runs),
        )
        return pb.GetRunResponse(runs=runs, total_spent=total)

    async def GetRunCost(self, request: pb.GetRunCostRequest, call: Call) -> pb.GetRunCostResponse:
        answer = await self._started.cost(request.run_id, call)
        return cost_of_runs(answer.runs, answer.costs)

    async def RaiseRun(self, request: pb.RaiseRunRequest, call: Call) -> pb.RaiseRunResponse:
        change = limiter_pb.ChangeRunRequest(
            run_id=request.run_id, action=limiter_pb.RUN_ACTION_RAISE, limits=request.limits
        )
        return pb.RaiseRunResponse(run=(await self._started.change(change, call))[0])

    async def PauseRun(self, request: pb.PauseRunRequest, call: Call) -> pb.PauseRunResponse:
        change = limiter_pb.ChangeRunRequest(
            run_id=request.run_id, action=limiter_pb.RUN_ACTION_PAUSE, reason=request.reason
        )
        return pb.PauseRunResponse(run=(await self._started.change(change, call))[0])

    async def EndRun(self, request: pb.EndRunRequest, call: Call) -> pb.EndRunResponse:
        change = limiter_pb.ChangeRunRequest(
            run_id=request.run_id, action=limiter_pb.RUN_ACTION_END
        )
        return pb.EndRunResponse(run=(await self._started.change(change, call))[0])

    async def ListRuns(self, request: pb.ListRunsRequest, call: Call) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=await self._started.latest(request.limit, call))

    async def CancelRun(
        self, request: router_pb2.CancelRunRequest, call: Call
    ) -> router_pb2.CancelRunResponse:
        if not request.run_id:
            raise invalid("run_id", "is empty")
        calls, jobs = await self._cancels.cancel(request.run_id, call)
        return router_pb2.CancelRunResponse(cancelled_calls=calls, cancelled_jobs=jobs)
