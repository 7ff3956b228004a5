"""Which model should serve a call that leaves the choice open: the cheapest that is good enough, by
what the configuration declares and what callers have judged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.requests.token_counts import TokenCounts
from penstock.router.settings import ModelRoute, RoutesSection
from penstock.service.bounded_map import BoundedMap
from penstock.service.current import Current
from penstock.tasks.kind import Estimate, Kind, TokenCounter

AUTO = "auto"
DECLARED_WEIGHT = 20.0
"""A declared quality counts as so many judged answers."""
MAX_MODELS = 5
"""Models that one call may be tried on: a chain is never a loop."""
SERVED_KEPT = 16_384


class Chain(NamedTuple):
    """Models for a call in the order in which they are tried, and why the first is the first."""

    models: tuple[str, ...]
    reason: str = ""


class Models:
    """The routes in force and what callers have said of the answers."""

    def __init__(
        self,
        routes: RoutesSection,
        default_model: str,
        prices: Current[Prices],
        counters: Mapping[str, TokenCounter] | None = None,
    ) -> None:
        """`default_model` serves calls that name none; empty: the one of the task's kind."""
        self.token_counts = TokenCounts()
        self._default = default_model
        self._prices = prices
        self._judged: dict[str, list[int]] = {}
        """Answers that were right and answers that were judged, by model."""
        self._served: BoundedMap[tuple[str, str], str] = BoundedMap(SERVED_KEPT)
        """Models by organisation and request id."""
        self.replace(routes, counters)

    def replace(
        self, routes: RoutesSection, counters: Mapping[str, TokenCounter] | None = None
    ) -> None:
        """Put new routes in force, and the tokenizers that they name."""
        self.token_counts.replace(counters or {})
        self._routes = routes
        self._declared: Mapping[str, ModelRoute] = {route.name: route for route in routes.models}

    @property
    def cascade_floor(self) -> float:
        """Confidence below which an automatic choice is taken to the next model; 0 for never."""
        return self._routes.cascade_floor

    def chain(
        self,
        options: router_pb2.CallOptions,
        kind: Kind,
        estimate: Estimate,
        serving: Collection[str],
    ) -> Chain:
        """The models to try, each once: what was asked for or the cheapest good one, then the
        fallbacks.

        Args:
            serving: models that have instances.
        """
        spare = options.fallback_models
        if options.model != AUTO:
            first = options.model or self._default or kind.default_model
            others = self._routes.fallbacks.get(first, ())
            if not spare and not others:
                return Chain((first,))
            return Chain(_once([first, *spare, *others]))
        min_quality = options.min_quality or self._routes.min_quality
        good = [
            route
            for route in self._able(options.required_capabilities, kind, estimate, serving)
            if self.quality(route.name) >= min_quality
        ]
        if not good:
            why = "auto: no declared model is able and good enough; the default"
            return Chain(_once([self._default or kind.default_model, *spare]), why)
        good.sort(key=lambda route: self._price_microusd(route.name, estimate))
        why = f"auto: cheapest of {len(good)} with quality {min_quality:g} or more"
        return Chain(_once([*(route.name for route in good), *spare]), why)

    def _able(
        self, needs: Collection[str], kind: Kind, estimate: Estimate, serving: Collection[str]
    ) -> list[ModelRoute]:
        return [
            route
            for route in self._routes.models
            if route.name in serving
            and (not route.tasks or kind.name in route.tasks)
            and set(needs) <= {*route.capabilities}
            and (not route.max_input_tokens or estimate.input_tokens <= route.max_input_tokens)
        ]

    def quality(self, name: str) -> float:
        """The declared quality, moved by what callers have judged."""
        declared = self._declared[name].quality if name in self._declared else 0.0
        right, judged = self._judged.get(name, (0, 0))
        return (declared * DECLARED_WEIGHT + right) / (DECLARED_WEIGHT + judged)

    def served(self, organisation: str, request_id: str, name: str) -> None:
        """Remember who answered, for a verdict that may come."""
        self._served.put((organisation, request_id), name)

    def judge(self, organisation: str, request_id: str, correct: bool) -> bool:
        """Take a caller's verdict; each answer is judged once, by the organisation that got it.
        False where there is none to judge.
        """
        name = self._served.pop((organisation, request_id))
        if name is None:
            return False
        tally = self._judged.setdefault(name, [0, 0])
        tally[0] += correct
        tally[1] += 1
        return True

    def described(self, name: str) -> router_pb2.AvailableModel:
        """A model's row in a list of models, with its prices."""
        model = router_pb2.AvailableModel(name=name)
        price = self._prices.value.models.get(name)
        if price is not None:
            model.priced = True
            model.input_microusd_per_mtok = price.input_microusd_per_mtok
            model.output_microusd_per_mtok = price.output_microusd_per_mtok
        return model

    def _price_microusd(self, name: str, estimate: Estimate) -> int:
        """Estimated price of a task on a model; 0 when the model has none."""
        prices = self._prices.value
        return prices.cost_bound_microusd(name, estimate.input_tokens, estimate.output_tokens) or 0


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))[:MAX_MODELS]
