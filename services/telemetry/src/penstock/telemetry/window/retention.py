"""Which traces are worth keeping longer than others when the window is full.

A tail-sampling rule: it is decided when a trace has settled, from what is then known of it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from penstock.telemetry.window.distributions import Distribution
from penstock.telemetry.window.settled_traces import TraceSummary

RESERVOIR_SIZE = 50
"""Ordinary traces of each route that are kept beyond the others."""

MIN_ROUTE_TRACES = 100
"""Traces of a route before its 99th percentile says which are slow."""

MAX_ROUTES = 1000

EVICTION_ORDER = ("", "reservoir", "anomalous", "slow", "error")
"""Reasons to keep a trace, the first to be released first; within a reason the oldest goes first.
"""


class TraceFacts(NamedTuple):
    """What is known of a settled trace."""

    error: str
    duration_ms: float
    route_p99_ms: float
    route_traces: int
    """Traces of the same route so far."""
    is_anomalous: bool = False
    kept_by_sender: str = ""
    """Why its sender exported it although it was not sampled; empty for a sampled one."""


def retention_reason(facts: TraceFacts, reservoir_size: int, rng: random.Random) -> str:
    """Why to keep a trace beyond ordinary ones: a member of EVICTION_ORDER; empty for an ordinary
    one.

    The reservoir is Vitter's algorithm R: every trace of a route is in it with the same
    probability.
    """
    if facts.error:
        return "error"
    if facts.is_anomalous:
        return "anomalous"
    is_slow = facts.route_traces >= MIN_ROUTE_TRACES and facts.duration_ms > facts.route_p99_ms
    if is_slow or facts.kept_by_sender == "slow":
        return "slow"
    in_reservoir = rng.random() * max(facts.route_traces, 1) < reservoir_size
    return "reservoir" if in_reservoir else ""


class Retention:
    """Applies `retention_reason` to each trace as it settles, with the durations of its route."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._routes: dict[str, Distribution] = {}

    def reason(self, summary: TraceSummary, kept_by_sender: str, is_anomalous: bool) -> str:
        """Why to keep this trace; counts its duration for its route."""
        route = self._route(summary.name)
        route.add(summary.duration_ns)
        facts = TraceFacts(
            summary.error,
            summary.duration_ns / 1e6,
            route.quantile_ms(0.99),
            route.count,
            is_anomalous,
            kept_by_sender,
        )
        return retention_reason(facts, RESERVOIR_SIZE, self._rng)

    def _route(self, name: str) -> Distribution:
        """The durations of a route; of routes beyond the bound nothing is remembered."""
        route = self._routes.get(name)
        if route is None:
            route = Distribution()
            if len(self._routes) < MAX_ROUTES:
                self._routes[name] = route
        return route
