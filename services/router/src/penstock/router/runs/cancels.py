"""Cancelling runs: at the limiter, which knows the tree and whose it is, and then their calls and
jobs wherever they are.

While the limiter does not answer, the calls in flight at this router end at once, as far as ids say
that they belong to the run, and as far as they are the caller's own; the caller is told so. The
rest of the cancel is repeated beside that until the limiter answers. Meanwhile the run takes no
call, since none of a started run is admitted without the limiter.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from grpc import StatusCode
from penstock.router.runs.runs import Runs
from penstock.router.runs.started_runs import StartedRuns
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.background import Background
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

ANSWER_S = 2.5
"""Longest wait for the limiter, which waits for its store for at most 2 s."""
AGAIN_S = 1.0
"""Pause before a cancel is repeated."""
MAX_REPEATED = 1_000
"""Cancels that are repeated at a time; beyond them the oldest is given up."""
CancelJobs = Callable[[str, Call], Awaitable[int]]
"""Cancels the jobs of a run and gives how many had not ended; raises Fault."""
AWAY = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)


class Cancelled(NamedTuple):
    """What a cancel has ended."""

    calls: int
    """Calls in flight at this router."""
    jobs: int


class RunCancels:
    """Cancels runs. Owner must `close` it."""

    def __init__(
        self, started: StartedRuns, runs: Runs, cancel_jobs: CancelJobs | None, clock: Clock
    ) -> None:
        self._started = started
        self._runs = runs
        self._cancel_jobs = cancel_jobs
        self._clock = clock
        self._repeated: BoundedMap[tuple[Principal, str], None] = BoundedMap(MAX_REPEATED)
        """Who has cancelled which run, of those that the limiter has not heard of."""
        self._after = Background()

    async def cancel(self, run_id: str, call: Call) -> Cancelled:
        """Cancel a run and those below it.

        Raises:
            Fault: UNAVAILABLE, saying what was done, where the limiter does not answer.
        """
        try:
            return await self._cancelled(run_id, call)
        except Fault as fault:
            if fault.code not in AWAY:
                raise
        ended = self._runs.end_calls(call.principal, run_id)
        self._repeat(call.principal, run_id)
        message = (
            f"the limiter does not answer; calls of run {run_id[:128]} in flight at this router "
            f"that were cancelled: {ended}; the rest follows as soon as it answers, repeat to learn"
        )
        raise unavailable(message, retry_after_s=AGAIN_S, reason=Reason.LIMITS_UNAVAILABLE)

    async def close(self) -> None:
        """Stop; cancels that are still to be repeated are given up."""
        await self._after.close()
        for _, run_id in self._repeated:
            log.warning("the cancel of run %s has not reached the limiter", run_id)

    async def _cancelled(self, run_id: str, call: Call) -> Cancelled:
        hurried_s = min(call.deadline_s, self._clock.monotonic() + ANSWER_S)
        calls = jobs = 0
        for each in await self._started.cancel(run_id, call._replace(deadline_s=hurried_s)):
            calls += self._runs.cancel(call.principal.organisation, each)
            if self._cancel_jobs is not None:
                jobs += await self._cancel_jobs(each, call)
        return Cancelled(calls, jobs)

    def _repeat(self, principal: Principal, run_id: str) -> None:
        is_working = len(self._repeated) > 0
        given_up = self._repeated.put((principal, run_id), None)
        if given_up is not None:
            (_, lost_id), _ = given_up
            log.warning("too many cancels wait for the limiter: that of run %s is lost", lost_id)
        if not is_working:
            self._after.start(self._work_off(), "cancels of runs")

    async def _work_off(self) -> None:
        """Repeat cancels until the limiter has answered all."""
        while len(self._repeated):
            principal, run_id = next(iter(self._repeated))
            try:
                await self._cancelled(run_id, Call(principal))
            except Fault as fault:
                if fault.code in AWAY:
                    await self._clock.sleep(AGAIN_S)
                    continue
                log.info("the cancel of run %s was refused: %s", run_id, fault.reason)
            self._repeated.pop((principal, run_id))
