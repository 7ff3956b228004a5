"""The order between a tenant's agent runs: weighted fair queueing by tokens, with equal weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _WaitingRun:
    end: float
    """Virtual time, in tokens, at which the run's next item starts."""
    items: int = 0
    tokens: int = 0


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
        self._without_run = _WaitingRun(0.0)

    def tokens_ahead(self, run_id: str) -> float:
        """Waiting tokens that are served before an item that came now."""
        own = self._runs.get(run_id)
        start = max(self._virtual_time, own.end) if own else self._virtual_time
        of_runs = (
            min(float(run.tokens), max(0.0, start - (run.end - run.tokens)))
            for run in self._runs.values()
        )
        return self._without_run.tokens + sum(of_runs)

    def enter(self, run_id: str, tokens: int) -> float:
        """The tag of an item that begins to wait."""
        run = self._without_run
        if run_id:
            run = self._runs.setdefault(run_id, _WaitingRun(self._virtual_time))
        run.items, run.tokens = run.items + 1, run.tokens + tokens
        if not run_id:
            return self._virtual_time
        start = max(self._virtual_time, run.end)
        run.end = start + tokens
        return start

    def serve(self, run_id: str, tokens: int) -> None:
        """Note that an item is served: time goes on for every run that waits."""
        if self._runs:
            self._virtual_time += tokens / (len(self._runs) + self._without_run.items)
        self._leave(run_id, tokens)

    def give_back(self, run_id: str, tokens: int) -> None:
        """Note that an item leaves unserved: its tokens go off its run's account."""
        if run_id:
            self._runs[run_id].end -= tokens
        self._leave(run_id, tokens)

    def _leave(self, run_id: str, tokens: int) -> None:
        run = self._runs[run_id] if run_id else self._without_run
        run.items, run.tokens = run.items - 1, run.tokens - tokens
        if run_id and not run.items:
            del self._runs[run_id]
        if not self._runs and not self._without_run.items:
            self._virtual_time = 0.0
