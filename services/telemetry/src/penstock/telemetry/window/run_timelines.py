"""The timeline of an agent run: its calls in time, over all its traces. Pure.

An agent calls, waits, thinks, and calls again; a call is a request of one of the run's traces. The
run's critical path is that of a tree whose root is the agent and whose children are the calls
(`spans/critical_path.py`): at every moment, the call that the run was waiting for, or the agent
itself. A call whose end nobody waited for before the next one began is not on it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from penstock.rpc.run_ids import is_within
from penstock.telemetry.spans.critical_path import critical_ns_by_span, critical_path
from penstock.telemetry.spans.spans import Source, SpanTree, SpanView
from penstock.telemetry.window.settled_traces import TraceSummary, calls_of, summarise_trace

AGENT = "agent"
"""Identifier of the span that stands for the agent; no recorded one is its equal."""


class CallOfRun(NamedTuple):
    """One request of a run."""

    summary: TraceSummary
    """As if it were a trace of its own."""
    span: SpanView
    """Its outermost span."""


class PlacedCall(NamedTuple):
    """A call and its place among the others; times in nanoseconds."""

    call: CallOfRun
    critical_ns: int
    """For how long the run waited for it."""
    overlap_ns: int
    """For how long others were in flight too."""
    gap_ns: int
    """For how long none was in flight right before it."""


class RunTimeline(NamedTuple):
    """The calls of a run by their starts, and what of its time was the agent's own."""

    calls: Sequence[PlacedCall]
    start_ns: int
    """Unix nanoseconds."""
    end_ns: int
    agent_ns: int
    """On the critical path, in no call."""


def calls_of_run(trace_id: bytes, tree: SpanTree, run_id: str, tenant: str) -> list[CallOfRun]:
    """The requests of a trace that belong to a run or lie below it.

    Args:
        tenant: whose requests; empty for anybody's.
    """
    calls = [CallOfRun(summarise_trace(trace_id, each), each.root) for each in calls_of(tree)]
    return [
        call
        for call in calls
        if is_within(call.summary.run_id, run_id) and tenant in ("", call.summary.tenant)
    ]


def timeline_of(calls: Iterable[CallOfRun]) -> RunTimeline:
    """The timeline of a run's calls; at least one."""
    ordered = sorted(calls, key=lambda call: (call.span.start_ns, -call.span.end_ns))
    start_ns = ordered[0].span.start_ns
    end_ns = max(start_ns, *(call.span.end_ns for call in ordered))
    critical_ns = _critical_ns([call.span for call in ordered], start_ns, end_ns)
    shared, latest_ns, placed = _SharedTime(ordered), start_ns, []
    for call in ordered:
        span = call.span
        on_path_ns, gap_ns = critical_ns.get(span.span_id, 0), max(0, span.start_ns - latest_ns)
        overlap_ns = shared.between(span.start_ns, span.end_ns)
        placed.append(PlacedCall(call, on_path_ns, overlap_ns, gap_ns))
        latest_ns = max(latest_ns, span.end_ns)
    return RunTimeline(placed, start_ns, end_ns, critical_ns.get(AGENT, 0))


def _critical_ns(spans: Sequence[SpanView], start_ns: int, end_ns: int) -> dict[str, int]:
    """Nanoseconds on the run's critical path by span, the agent's among them."""
    agent = SpanView(AGENT, "", Source(AGENT, ""), AGENT, "internal", start_ns, end_ns, "", {})
    tree = SpanTree([agent, *(span._replace(parent_id=AGENT) for span in spans)])
    return critical_ns_by_span(critical_path(tree))


class _SharedTime:
    """In how much of a stretch of time at least two calls are in flight."""

    def __init__(self, calls: Iterable[CallOfRun]) -> None:
        steps = sorted(
            step
            for call in calls
            for step in ((call.span.start_ns, 1), (max(call.span.end_ns, call.span.start_ns), -1))
        )
        self._at_ns, self._in_flight, self._shared_ns = [0], [0], [0]
        for at_ns, step in steps:
            self._shared_ns.append(self._until(at_ns))
            self._at_ns.append(at_ns)
            self._in_flight.append(self._in_flight[-1] + step)

    def between(self, start_ns: int, end_ns: int) -> int:
        """Nanoseconds of this stretch."""
        return self._until(end_ns) - self._until(start_ns)

    def _until(self, at_ns: int) -> int:
        place = bisect_right(self._at_ns, at_ns) - 1
        since_ns = at_ns - self._at_ns[place] if self._in_flight[place] > 1 else 0
        return self._shared_ns[place] + since_ns
