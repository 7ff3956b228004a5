"""What calls of a kind usually cost beyond their input: quantiles of the latest ones, by
organisation, model and route. Plain.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

SAMPLES_PER_GROUP = 512
MIN_SAMPLES = 20
"""With fewer observations than this, the most that a call may cost is what is held for it."""
MAX_GROUPS = 4_096
"""Kinds that are remembered, 12 kB each at most."""
MAX_ROUTES_PER_MODEL = 64
"""Routes that are remembered of one model, so that who makes up routes crowds out only those of its
own.
"""
REFRESH_EVERY_SAMPLES = 16
"""A quantile is computed again after so many observations."""


class CallGroup(NamedTuple):
    """Calls whose outputs are alike. Without a route it is every call of the model."""

    organisation: str
    model: str
    route: str = ""


@dataclass
class CostSamples:
    """The latest calls of a kind: requests, tokens and micro-dollars beyond the input."""

    latest: tuple[array[int], ...] = field(
        default_factory=lambda: tuple(array("q") for _ in range(3))
    )
    count: int = 0
    known: list[int] | None = None

    def learn(self, beyond: list[int], quantile: float) -> None:
        for values, value in zip(self.latest, beyond, strict=True):
            if len(values) < SAMPLES_PER_GROUP:
                values.append(max(value, 0))
            else:
                values[self.count % SAMPLES_PER_GROUP] = max(value, 0)
        self.count += 1
        if self.count >= MIN_SAMPLES and (
            self.known is None or self.count % REFRESH_EVERY_SAMPLES == 0
        ):
            self.known = [_quantile(values, quantile) for values in self.latest]


class OutputEstimates:
    """Learns quantiles of output costs.

    Memory is bounded: the kind that was used longest ago is forgotten first.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._seen: OrderedDict[CallGroup, CostSamples] = OrderedDict()
        self._routes: dict[CallGroup, OrderedDict[CallGroup, None]] = {}
        """The routes of each model, the one that was used longest ago first."""

    def learn(self, kind: CallGroup, beyond: list[int]) -> None:
        """Note what one call cost beyond its input, for its route and for its model: requests,
        tokens, micro-dollars.
        """
        model = kind._replace(route="")
        for each in dict.fromkeys((kind, model)):
            self._seen.setdefault(each, CostSamples()).learn(beyond, self._quantile)
            self._seen.move_to_end(each)
        if kind != model:
            routes = self._routes.setdefault(model, OrderedDict())
            routes[kind] = None
            routes.move_to_end(kind)
            if len(routes) > MAX_ROUTES_PER_MODEL:
                self._forget(next(iter(routes)))
        while len(self._seen) > MAX_GROUPS:
            self._forget(next(iter(self._seen)))

    def usual(self, kind: CallGroup, most: list[int], least: list[int]) -> list[int]:
        """What to hold for an expected rule: the input and the quantile of what comes out, never
        above the most.

        A route that has been seen too seldom is taken for like the model's other calls; a model
        that has, for as dear as can be.
        """
        for each in (kind, kind._replace(route="")):
            seen = self._seen.get(each)
            if seen is not None and seen.known is not None:
                return [
                    min(top, low + out)
                    for top, low, out in zip(most, least, seen.known, strict=True)
                ]
        return list(most)

    def __len__(self) -> int:
        """Kinds that are remembered."""
        return len(self._seen)

    def _forget(self, kind: CallGroup) -> None:
        del self._seen[kind]
        model = kind._replace(route="")
        routes = self._routes.get(model)
        if routes is not None:
            routes.pop(kind, None)
            if not routes:
                del self._routes[model]


def _quantile(values: array[int], share: float) -> int:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]
