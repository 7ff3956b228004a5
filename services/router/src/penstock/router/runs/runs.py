"""An agent run as a unit: one deadline, one spending limit, and one cancel that reaches every call
in flight, at every router.

Only runs of which there is something to know are kept. What one router learns, the others learn as
facts, which `run_stream.py` carries.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType

from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.runs.facts import NO_LIMIT, Fact, Outbox, RunKey
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault, exhausted
from penstock.rpc.reasons import Reason
from penstock.rpc.run_ids import is_within
from penstock.service.clock import Clock

RUNS_KEPT = 65_536


@dataclass(slots=True)
class Run:
    """What a router knows of a run. Limits are those that the first call to name them set."""

    deadline_s: float = math.inf
    max_microusd: int = NO_LIMIT
    spent_microusd: int = 0
    cancelled: bool = False


class Runs:
    """The runs of this router; the longest unused are forgotten.

    Args:
        outbox: takes what other routers should know; None where there is no way to tell them.
    """

    def __init__(self, clock: Clock, outbox: Outbox | None = None) -> None:
        self._clock = clock
        self._outbox = outbox
        self._runs: OrderedDict[RunKey, Run] = OrderedDict()
        self._in_flight: dict[RunKey, dict[asyncio.Task[object], str]] = {}
        """Tasks and the keys of their callers."""
        self._ended: dict[asyncio.Task[object], Reason] = {}
        """Tasks that a run has ended, and why."""

    def enter(self, options: pb.CallOptions, call: Call) -> Call:
        """The call under its run's limits.

        Raises:
            Fault: the run was cancelled, or has spent what it may.
        """
        if not call.run_id:
            return call
        key = (call.principal.organisation, call.run_id)
        if options.run_deadline_ms or options.HasField("run_max_cost_microusd"):
            self._limit(key, options)
        run = self._runs.get(key)
        if run is None:
            return call
        self._runs.move_to_end(key)
        if run.cancelled:
            raise _cancelled(call.run_id)
        if 0 <= run.max_microusd <= run.spent_microusd:
            message = f"the run {call.run_id} has spent its {run.max_microusd} micro-dollars"
            raise exhausted(message, reason=Reason.RUN_BUDGET_EXHAUSTED)
        if call.deadline_s <= run.deadline_s:
            return call
        return call._replace(deadline_s=run.deadline_s)

    def _limit(self, key: RunKey, options: pb.CallOptions) -> None:
        known = self._runs.get(key) or Run()
        left_ms = options.run_deadline_ms if math.isinf(known.deadline_s) else 0
        max_microusd = NO_LIMIT
        if options.HasField("run_max_cost_microusd") and known.max_microusd < 0:
            max_microusd = options.run_max_cost_microusd
        if left_ms or max_microusd >= 0:
            self._publish(Fact(*key, left_ms=left_ms or NO_LIMIT, max_microusd=max_microusd))

    def spent(self, call: Call, microusd: int) -> None:
        """A call of the run has cost so much."""
        if call.run_id and microusd:
            self._publish(Fact(call.principal.organisation, call.run_id, spent_microusd=microusd))

    def cancel(self, organisation: str, run_id: str) -> int:
        """End every call of a run, and refuse those that come later; returns how many were in
        flight here.
        """
        count = len(self._in_flight.get((organisation, run_id), ()))
        self._publish(Fact(organisation, run_id, cancelled=True))
        return count

    def end_calls(self, principal: Principal, run_id: str) -> int:
        """End the calls in flight here of a started run and of those below it, as far as their ids
        say that they are; those of the caller's own key alone. Returns how many.
        """
        ended = 0
        for (organisation, each), tasks in self._in_flight.items():
            if organisation == principal.organisation and is_within(each, run_id):
                own = [task for task, key_id in tasks.items() if key_id == principal.key_id]
                for task in own:
                    self._stop(task, Reason.RUN_CANCELLED)
                ended += len(own)
        return ended

    def _publish(self, fact: Fact) -> None:
        self.learn(fact)
        if self._outbox is not None:
            self._outbox.add(fact)

    def learn(self, fact: Fact, age_s: float = 0.0) -> None:
        """Take in a fact that became known here, or at another router `age_s` ago."""
        run = self._run((fact.organisation, fact.run_id))
        if fact.left_ms >= 0:
            run.deadline_s = min(
                run.deadline_s, self._clock.monotonic() + fact.left_ms / 1e3 - age_s
            )
        if fact.max_microusd >= 0 and run.max_microusd < 0:
            run.max_microusd = fact.max_microusd
        run.spent_microusd += fact.spent_microusd
        if fact.cancelled and not run.cancelled:
            run.cancelled = True
            for task in self._in_flight.get((fact.organisation, fact.run_id), ()):
                self._stop(task, Reason.RUN_CANCELLED)

    def part_of(self, call: Call) -> Part:
        """Let the run's cancel and deadline reach this call while it lasts: `with
        runs.part_of(call):`.
        """
        return Part(self, call)

    def begin(
        self, key: RunKey, key_id: str, task: asyncio.Task[object]
    ) -> asyncio.TimerHandle | None:
        """Count a task as the run's, and as that of a caller's key; returns the timer that ends it
        at the run's deadline, where it has one.
        """
        self._in_flight.setdefault(key, {})[task] = key_id
        run = self._runs.get(key)
        if run is None or math.isinf(run.deadline_s):
            return None
        return asyncio.get_running_loop().call_later(
            run.deadline_s - self._clock.monotonic(), self._stop, task, Reason.RUN_DEADLINE
        )

    def end(self, key: RunKey, task: asyncio.Task[object]) -> Fault | None:
        """Count it no more; returns its caller's fault where the run has ended it."""
        tasks = self._in_flight[key]
        tasks.pop(task, None)
        if not tasks:
            del self._in_flight[key]
        reason = self._ended.pop(task, None)
        if reason is None:
            return None
        if reason is Reason.RUN_CANCELLED:
            return _cancelled(key[1])
        return _time_is_up(key[1])

    def is_bound(self, key: RunKey, call: Call) -> bool:
        """Whether the call's deadline is its run's."""
        run = self._runs.get(key)
        return run is not None and run.deadline_s <= call.deadline_s < math.inf

    def _stop(self, task: asyncio.Task[object], reason: Reason) -> None:
        if task not in self._ended:
            self._ended[task] = reason
            task.cancel()

    def _run(self, key: RunKey) -> Run:
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = Run()
            if len(self._runs) > RUNS_KEPT:
                self._runs.popitem(last=False)
        return run


class Part:
    """One call's part of its run, from entering to leaving."""

    __slots__ = ("_call", "_key", "_runs", "_task", "_timer")

    def __init__(self, runs: Runs, call: Call) -> None:
        self._runs = runs
        self._call = call
        self._key = (call.principal.organisation, call.run_id)
        self._task: asyncio.Task[object] | None = asyncio.current_task() if call.run_id else None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._task is not None:
            key_id = self._call.principal.key_id
            self._timer = self._runs.begin(self._key, key_id, self._task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        fault = self._runs.end(self._key, self._task)
        if fault is not None and isinstance(error, asyncio.CancelledError):
            # gRPC sends no status for a handler that was cancelled from inside; the caller is owed
            # one.
            self._task.uncancel()
            raise fault from None
        if self._ended_elsewhere(error):
            raise _time_is_up(self._call.run_id) from None

    def _ended_elsewhere(self, error: BaseException | None) -> bool:
        """Whether the run's deadline has ended the call at the batcher or the instance.

        The time left is sent in whole milliseconds, rounded down, so that it ends there before the
        timer fires here.
        """
        late = isinstance(error, Fault) and error.reason is Reason.DEADLINE_EXCEEDED
        return late and self._runs.is_bound(self._key, self._call)


def _cancelled(run_id: str) -> Fault:
    return Fault(Reason.RUN_CANCELLED, f"the run {run_id} was cancelled")


def _time_is_up(run_id: str) -> Fault:
    return Fault(Reason.RUN_DEADLINE, f"the time of run {run_id} is up")
