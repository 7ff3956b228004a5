"""The order between a tenant's agent runs: weighted fair queueing by tokens, with equal weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _WaitingRun:
    items: int
    end: float
    """Virtual time, in tokens, at which the run's next item starts."""


class RunOrder:
    """Start tags, in virtual time, of the items of one tenant in one class.

    The item with the smallest tag is next. Virtual time is what each run that waits has had of an
    ideal fair server (Demers, Keshav and Shenker, 1989). A run's items follow one another at the
    distance of their tokens, and a run that comes back begins at the present. So a run with few
    items waits for about one item of each other run, however many these have queued. An item
    without a run is a run of its own; where no run waits, all tags are equal.
    """

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._runs: dict[str, _WaitingRun] = {}
        self._without_run = 0

    def enter(self, run_id: str, tokens: int) -> float:
        """The tag of an item that begins to wait."""
        if not run_id:
            self._without_run += 1
            return self._virtual_time
        run = self._runs.setdefault(run_id, _WaitingRun(0, self._virtual_time))
        start = max(self._virtual_time, run.end)
        run.items, run.end = run.items + 1, start + tokens
        return start

    def serve(self, run_id: str, tokens: int) -> None:
        """Note that an item is served: time goes on for every run that waits."""
        if self._runs:
            self._virtual_time += tokens / (len(self._runs) + self._without_run)
        self._leave(run_id)

    def give_back(self, run_id: str, tokens: int) -> None:
        """Note that an item leaves unserved: its tokens go off its run's account."""
        if run_id:
            self._runs[run_id].end -= tokens
        self._leave(run_id)

    def _leave(self, run_id: str) -> None:
        if not run_id:
            self._without_run -= 1
        else:
            run = self._runs[run_id]
            run.items -= 1
            if not run.items:
                del self._runs[run_id]
        if not self._runs and not self._without_run:
            self._virtual_time = 0.0
