"""What telemetry decides: whether to take an export, and how long a trace is worth keeping.

Plain values in and out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

RETRY_S = 1.0


def retry_after_s(pending_spans: int, incoming_spans: int, limit: int) -> float:
    """Seconds after which an export should be tried again because too much is waiting; 0 takes
    it.
    """
    return RETRY_S if pending_spans and pending_spans + incoming_spans > limit else 0.0


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """What is known of a trace when it has settled."""

    error: str
    duration_ms: float
    route_p99_ms: float
    route_seen: int
    anomalous: bool = False
    kept_by_sender: str = ""


def retention_reason(outcome: TraceFacts, reservoir: int, rng: random.Random) -> str:
    """Why to keep a trace beyond the others: `error`, `slow`, `anomalous`, `reservoir`; empty for
    an ordinary one.

    The reservoir is Vitter's algorithm R for each route: any one trace of a route is in it with the
    same chance.
    """
    if outcome.error:
        return "error"
    if outcome.anomalous:
        return "anomalous"
    if outcome.kept_by_sender == "slow" or (
        outcome.route_seen >= 100 and outcome.duration_ms > outcome.route_p99_ms
    ):
        return "slow"
    return "reservoir" if rng.random() * max(outcome.route_seen, 1) < reservoir else ""


EVICTED_FIRST = ("", "reservoir", "anomalous", "slow", "error")
"""Order in which kinds of traces are let go when the window is full; the oldest of a kind goes
first.
"""
