"""An agent run as a unit: one deadline, one spending limit, and one cancel that reaches every call in flight."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from penstock.api.router.v1 import router_pb2 as pb
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import Fault, exhausted

RUNS_KEPT = 65_536


@dataclass
class Run:
    """What a router knows of a run. Limits are those that its first call to name them set."""

    deadline_s: float = math.inf
    most_microusd: int = -1
    spent_microusd: int = 0
    cancelled: bool = False
    tasks: set[asyncio.Task[object]] = field(default_factory=set)


class Runs:
    """The runs of this router, by organisation and run id; the longest unused are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._runs: OrderedDict[tuple[str, str], Run] = OrderedDict()
        self._ended: set[asyncio.Task[object]] = set()

    def enter(self, options: pb.CallOptions, call: Call) -> Call:
        """The call under its run's limits.

        Raises:
            Fault: the run was cancelled, or has spent what it may.
        """
        if not call.run_id:
            return call
        run = self._run(call)
        if run.cancelled:
            raise _cancelled(call.run_id)
        if options.run_deadline_ms and math.isinf(run.deadline_s):
            run.deadline_s = self._clock.monotonic() + options.run_deadline_ms / 1e3
        if options.HasField("run_max_cost_microusd") and run.most_microusd < 0:
            run.most_microusd = options.run_max_cost_microusd
        if 0 <= run.most_microusd <= run.spent_microusd:
            raise exhausted(
                f"the run {call.run_id} has spent its {run.most_microusd} micro-dollars", "RUN_BUDGET_EXHAUSTED"
            )
        return call if call.deadline_s <= run.deadline_s else call._replace(deadline_s=run.deadline_s)

    def spent(self, call: Call, microusd: int) -> None:
        """A call of the run has cost so much."""
        if call.run_id and microusd:
            self._run(call).spent_microusd += microusd

    @contextlib.contextmanager
    def part_of(self, call: Call) -> Iterator[None]:
        """Let the run's cancel and deadline reach this call while it lasts."""
        task = asyncio.current_task()
        if not call.run_id or task is None:
            yield
            return
        run = self._run(call)
        run.tasks.add(task)
        left_s = run.deadline_s - self._clock.monotonic()
        timer = None if math.isinf(left_s) else asyncio.get_running_loop().call_later(left_s, self._stop, task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            # gRPC sends no status for a handler that was cancelled from inside; the caller is owed one.
            task.uncancel()
            if not run.cancelled:
                raise Fault(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"the time of run {call.run_id} is up", reason="RUN_DEADLINE"
                ) from None
            raise _cancelled(call.run_id) from None
        finally:
            if timer is not None:
                timer.cancel()
            self._ended.discard(task)
            run.tasks.discard(task)

    def cancel(self, organisation: str, run_id: str) -> int:
        """End every call of a run, and refuse those that come later; gives how many were in flight."""
        run = self._find((organisation, run_id))
        run.cancelled = True
        tasks = list(run.tasks)
        for task in tasks:
            self._stop(task)
        return len(tasks)

    def _stop(self, task: asyncio.Task[object]) -> None:
        self._ended.add(task)
        task.cancel()

    def _run(self, call: Call) -> Run:
        return self._find((call.principal.organisation, call.run_id))

    def _find(self, key: tuple[str, str]) -> Run:
        run = self._runs.get(key)
        if run is not None:
            self._runs.move_to_end(key)
            return run
        run = self._runs[key] = Run()
        if len(self._runs) > RUNS_KEPT:
            oldest = next(iter(self._runs))
            if not self._runs[oldest].tasks:
                del self._runs[oldest]
        return run


def _cancelled(run_id: str) -> Fault:
    return Fault(grpc.StatusCode.CANCELLED, f"the run {run_id} was cancelled", reason="RUN_CANCELLED")
