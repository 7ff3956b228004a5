"""What calls are expected to cost beyond their input: quantiles of earlier calls.

Outputs of calls for the same purpose are alike, so samples are kept by organisation, model and
route. A route with few samples is estimated by all calls of its model, and a model with few samples
by the most that a call may cost. Costs are requests, tokens and micro-dollars, in this order.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.limiter.counters import Amounts

SAMPLES_PER_GROUP = 512
"""The latest calls of a group that are kept."""
MIN_SAMPLES = 20
"""Groups with fewer samples have no estimate."""
MAX_GROUPS = 4_096
"""Groups that are remembered, each in 12 kB at most."""
MAX_ROUTES_PER_MODEL = 64
"""Routes that are remembered of one model, so that a caller who makes up routes displaces only
routes of its own.
"""
REFRESH_EVERY_SAMPLES = 16
"""A quantile is computed again after so many samples."""


class CallGroup(NamedTuple):
    """Calls whose outputs are alike; without a route, all calls of the model."""

    organisation: str
    model: str
    route: str = ""


@dataclass
class CostSamples:
    """The latest calls of a group, each with its cost beyond the input, and their quantile."""

    latest: tuple[array[int], ...] = field(
        default_factory=lambda: tuple(array("q") for _ in range(3))
    )
    count: int = 0
    estimate: list[int] | None = None
    """None while there are too few samples."""

    def record(self, cost: Amounts, quantile: float) -> None:
        """Add a call; a negative cost counts as 0."""
        for values, value in zip(self.latest, cost, strict=True):
            if len(values) < SAMPLES_PER_GROUP:
                values.append(max(value, 0))
            else:
                values[self.count % SAMPLES_PER_GROUP] = max(value, 0)
        self.count += 1
        is_due = self.estimate is None or self.count % REFRESH_EVERY_SAMPLES == 0
        if self.count >= MIN_SAMPLES and is_due:
            self.estimate = [_quantile(values, quantile) for values in self.latest]


class OutputEstimates:
    """Estimates by group.

    Memory is bounded: the group that was used longest ago is forgotten first.

    Args:
        quantile: the part of earlier calls that an estimate covers, above 0 and below 1.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._samples: OrderedDict[CallGroup, CostSamples] = OrderedDict()
        self._routes: dict[CallGroup, OrderedDict[CallGroup, None]] = {}
        """The routes of each model, the one that was used longest ago first."""

    def __len__(self) -> int:
        """The number of groups that are remembered."""
        return len(self._samples)

    @property
    def models_with_routes(self) -> int:
        """The number of models whose routes are remembered."""
        return len(self._routes)

    def record(self, group: CallGroup, output_cost: Amounts) -> None:
        """Record what one call cost beyond its input, for its route and for its model."""
        model = group._replace(route="")
        for each in dict.fromkeys((group, model)):
            self._samples.setdefault(each, CostSamples()).record(output_cost, self._quantile)
            self._samples.move_to_end(each)
        if group != model:
            self._use_route(model, group)
        while len(self._samples) > MAX_GROUPS:
            self._forget(next(iter(self._samples)))

    def expected_cost(self, group: CallGroup, max_cost: Amounts, min_cost: Amounts) -> list[int]:
        """What a call is expected to cost: its input (`min_cost`) and the estimate of its group, at
        most `max_cost`; `max_cost` if neither route nor model has an estimate.
        """
        for each in (group, group._replace(route="")):
            samples = self._samples.get(each)
            if samples is not None and samples.estimate is not None:
                return [
                    min(most, least + output)
                    for most, least, output in zip(
                        max_cost, min_cost, samples.estimate, strict=True
                    )
                ]
        return list(max_cost)

    def _use_route(self, model: CallGroup, route: CallGroup) -> None:
        routes = self._routes.setdefault(model, OrderedDict())
        routes[route] = None
        routes.move_to_end(route)
        if len(routes) > MAX_ROUTES_PER_MODEL:
            self._forget(next(iter(routes)))

    def _forget(self, group: CallGroup) -> None:
        del self._samples[group]
        model = group._replace(route="")
        routes = self._routes.get(model)
        if routes is not None:
            routes.pop(group, None)
            if not routes:
                del self._routes[model]


def _quantile(values: array[int], share: float) -> int:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]
