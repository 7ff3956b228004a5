"""Which model should serve a call that leaves the choice open: the cheapest that is good enough.

Plain; declared and measured facts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from penstock.prices.prices import Prices
from penstock.router.requests.work import Work
from penstock.router.settings import ModelRoute, RoutesSection

AUTO = "auto"
DECLARED_WEIGHT = 20.0
"""A declared quality counts as so many judged answers."""
MOST_MODELS = 5
"""Models that one call may be tried on: a chain is never a loop."""
SERVED_KEPT = 16_384


class Chain(NamedTuple):
    """Models for a call in the order in which they are tried, and why the first is the first."""

    models: tuple[str, ...]
    reason: str = ""


class Models:
    """The routes in force and what callers have said of the answers."""

    def __init__(
        self, routes: RoutesSection, default_model: str, prices: Callable[[], Prices]
    ) -> None:
        self._default = default_model
        self._prices = prices
        self._judged: dict[str, list[int]] = {}
        self._served: OrderedDict[str, str] = OrderedDict()
        self.replace(routes)

    def replace(self, routes: RoutesSection) -> None:
        """Put new routes in force."""
        self._routes = routes
        self._facts: Mapping[str, ModelRoute] = {route.name: route for route in routes.models}

    @property
    def cascade_floor(self) -> float:
        """Confidence below which an automatic choice is taken to the next model; 0 for never."""
        return self._routes.cascade_floor

    def chain(
        self,
        asked: str,
        work: Work,
        needs: Collection[str],
        least: float,
        serving: Collection[str],
        spare: Sequence[str],
    ) -> Chain:
        """The models to try: what was asked for or the cheapest good one, then the fallbacks, each
        once.
        """
        if asked != AUTO:
            first = asked or self._default
            others = self._routes.fallbacks.get(first, ())
            return (
                Chain(self._once([first, *spare, *others])) if spare or others else Chain((first,))
            )
        least = least or self._routes.min_quality
        able = [
            route
            for route in self._routes.models
            if route.name in serving
            and (not route.tasks or work.kind in route.tasks)
            and set(needs) <= {*route.capabilities}
            and (not route.max_input_tokens or work.input_tokens <= route.max_input_tokens)
        ]
        good = sorted(
            (route for route in able if self.quality(route.name) >= least),
            key=lambda route: self.price_of(route.name, work),
        )
        if not good:
            return Chain(
                self._once([self._default, *spare]),
                "auto: no declared model meets the ask; the default",
            )
        names = [route.name for route in good]
        return Chain(
            self._once([*names, *spare]),
            f"auto: cheapest of {len(good)} with quality {least:g} or more",
        )

    def quality(self, name: str) -> float:
        """The declared quality, moved by what callers have judged."""
        declared = self._facts[name].quality if name in self._facts else 0.0
        right, judged = self._judged.get(name, (0, 0))
        return (declared * DECLARED_WEIGHT + right) / (DECLARED_WEIGHT + judged)

    def served(self, request_id: str, name: str) -> None:
        """Remember who answered, for a verdict that may come."""
        self._served[request_id] = name
        if len(self._served) > SERVED_KEPT:
            self._served.popitem(last=False)

    def judge(self, request_id: str, correct: bool) -> None:
        """A caller's verdict; each answer is judged once."""
        name = self._served.pop(request_id, None)
        if name is not None:
            tally = self._judged.setdefault(name, [0, 0])
            tally[0] += correct
            tally[1] += 1

    def price_of(self, name: str, work: Work) -> int:
        """Estimated micro-dollars of this work on a model; 0 when it has no price."""
        return self._prices().cost_bound_microusd(name, work.input_tokens, work.output_tokens) or 0

    @staticmethod
    def _once(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in names if name))[:MOST_MODELS]
