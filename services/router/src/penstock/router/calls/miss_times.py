"""How long answers take that are not reused, so that what a reused one saves can be said.

Like is compared with like: the whole way of a call that was answered from memory with the usual
whole way of calls of the same model, kind and size that were computed.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.otel.counts import complexity_tier
from penstock.service.bounded_map import BoundedMap

MAX_ROUTES = 4096
WEIGHT = 0.1
"""Of a new time in the moving average; the first times are averaged evenly."""


class MissRoute(NamedTuple):
    """Calls that take about as long as each other."""

    model: str
    kind: str
    tier: str
    """By tokens, see `complexity_tier`."""

    @classmethod
    def of(cls, model: str, kind: str, tokens: int) -> MissRoute:
        """The route of a call with this many tokens, input and output together."""
        return cls(model, kind, complexity_tier(tokens))


class _Mean(NamedTuple):
    mean_ms: float
    calls: int


class MissTimes:
    """Usual times by route; of the routes used least recently nothing is remembered."""

    def __init__(self) -> None:
        self._means: BoundedMap[MissRoute, _Mean] = BoundedMap(MAX_ROUTES)

    def add(self, route: MissRoute, total_ms: float) -> None:
        """Count the whole way of a call that was computed."""
        before = self._means.get(route) or _Mean(0.0, 0)
        calls = before.calls + 1
        weight = max(WEIGHT, 1 / calls)
        self._means.put(route, _Mean(before.mean_ms + weight * (total_ms - before.mean_ms), calls))

    def saved_ms(self, route: MissRoute, total_ms: float) -> float:
        """What a call saved that took `total_ms` from memory; 0 while no other is known."""
        usual = self._means.get(route)
        return usual.mean_ms - total_ms if usual is not None else 0.0
