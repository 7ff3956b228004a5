"""Started runs, as the router's callers ask for them: the limiter keeps them and decides."""

from __future__ import annotations

import secrets
from typing import Any

from google.protobuf.message import Message
from penstock.api.common.v1 import run_pb2
from penstock.api.limiter.v1 import runs_pb2 as limiter_pb
from penstock.api.router.v1 import runs_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found, unavailable
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.rpc.run_ids import may_be_started, started_id

MAX_TOKEN_BYTES = 128


class StartedRuns:
    """Starts, shows and changes runs of the caller's key. Owner must `close` it.

    Args:
        limiter: keeps the budgets; None where none is configured, and no run can be started.
    """

    def __init__(self, limiter: Peer | None) -> None:
        self._limiter = limiter

    async def start(self, request: pb.StartRunRequest, call: Call) -> run_pb2.Run:
        """Start a run or open a child. Raises Fault."""
        parent, token = request.parent_run_id, request.idempotency_token
        if parent:
            _check_id("parent_run_id", parent)
        if len(token.encode()) > MAX_TOKEN_BYTES:
            raise invalid("idempotency_token", f"is longer than {MAX_TOKEN_BYTES} bytes")
        who = call.principal
        run_id = started_id(parent, who.organisation, who.key_id, token or secrets.token_hex(16))
        asked = limiter_pb.OpenRunRequest(
            run_id=run_id,
            parent_id=parent,
            name=request.name,
            limits=request.limits,
            reserve=request.reserve,
        )
        opened: limiter_pb.OpenRunResponse = await self._ask("OpenRun", asked, call)
        return opened.run

    async def get(self, run_id: str, call: Call) -> list[run_pb2.Run]:
        """A run and those below it. Raises Fault."""
        _check_id("run_id", run_id)
        asked = limiter_pb.ReadRunRequest(run_id=run_id)
        answer: limiter_pb.ReadRunResponse = await self._ask("ReadRun", asked, call)
        return list(answer.runs)

    async def cost(self, run_id: str, call: Call) -> limiter_pb.ReadRunCostResponse:
        """A run and those below it, with the rows of their costs. Raises Fault."""
        _check_id("run_id", run_id)
        asked = limiter_pb.ReadRunCostRequest(run_id=run_id)
        answer: limiter_pb.ReadRunCostResponse = await self._ask("ReadRunCost", asked, call)
        return answer

    async def latest(self, limit: int, call: Call) -> list[run_pb2.Run]:
        """The runs that the caller's key has used last. Raises Fault."""
        asked = limiter_pb.LatestRunsRequest(limit=limit)
        answer: limiter_pb.LatestRunsResponse = await self._ask("LatestRuns", asked, call)
        return list(answer.runs)

    async def change(self, change: limiter_pb.ChangeRunRequest, call: Call) -> list[run_pb2.Run]:
        """Raise, pause, cancel or end a run; gives it and those below it. Raises Fault."""
        _check_id("run_id", change.run_id)
        answer: limiter_pb.ChangeRunResponse = await self._ask("ChangeRun", change, call)
        return list(answer.runs)

    async def cancel(self, run_id: str, call: Call) -> list[str]:
        """Cancel a run and those below it; gives the ids of all whose calls are to end. A run that
        nobody can have started is itself all there is.
        """
        if not may_be_started(run_id) or self._limiter is None:
            return [run_id]
        action = limiter_pb.RUN_ACTION_CANCEL
        change = limiter_pb.ChangeRunRequest(run_id=run_id, action=action)
        return [run.id for run in await self.change(change, call)]

    async def close(self) -> None:
        """Hang up."""
        if self._limiter is not None:
            await self._limiter.close()

    async def _ask(self, method: str, request: Message, call: Call) -> Any:
        if self._limiter is None:
            message = "started runs need a limiter, and none is configured"
            raise unavailable(message, reason=Reason.NO_STORE)
        return await self._limiter.call(method, request, call)


def _check_id(field: str, run_id: str) -> None:
    if not run_id:
        raise invalid(field, "is empty")
    if not may_be_started(run_id):
        raise not_found(field, f"no run {run_id[:128]!r} was started: StartRun makes the ids")
