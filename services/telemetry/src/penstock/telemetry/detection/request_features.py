"""What the request detector looks at: one vector for each service that a request's critical path
went through. Plain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.otel import attributes as names
from penstock.telemetry.spans.spans import Source, SpanView, error_origin
from penstock.telemetry.window.settled import SettledRequest

FEATURES = ("latency_ms", "queue_wait_ms", "cost_per_token_microusd", "confidence")
"""Each in its own unit; vectors hold the first three as logarithms. Confidence is the model's: the
cache's own jumps whenever it calibrates itself, and whether its answers are right is what audits
say.
"""

SLOWDOWN_WEIGHTS = (1.0, 1.0, 0.0, 0.0)
"""Which of them a host that is short of processors makes worse."""

WORSE_DIRECTIONS = (1.0, 1.0, 1.0, -1.0)
"""Which way is worse: only what got worse is an incident."""

MIN_DIFFERENCES = (0.10, 0.10, 0.05, 0.02)
"""Differences below these mean nothing, however steady a feature has been."""

CALLER_ERROR_CODES = {
    "ALREADY_EXISTS",
    "CANCELLED",
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
}
"""Codes by which a service says that the caller erred, gave up or asked too much: its own health
they say nothing of.
"""

FeatureValues = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """Requests that are alike: by the instance that served, model, complexity tier and how the
    cache took part.
    """

    service: str
    instance: str
    model: str
    tier: str
    cache: str

    def __str__(self) -> str:
        instance = "" if ":" in self.instance or self.instance == self.service else self.instance
        return " ".join(
            part for part in (self.service, instance, self.model, self.tier, self.cache) if part
        )


@dataclass(frozen=True, slots=True)
class FeatureVector:
    """One request in one service: its features, the part of the critical path where it spent most,
    whether it failed there.

    Failures are counted in `errors`, a group by operation: a request that fails has no receipt, so
    no tier and no cache outcome.
    """

    group: RequestGroup
    errors: RequestGroup
    values: FeatureValues
    section: str
    failed: bool
    host: str = ""


def feature_vectors(seen: SettledRequest) -> Iterator[FeatureVector]:
    """The services on the critical path, each with the time spent in itself; the root's also with
    cost, queue and confidence.
    """
    origin = error_origin(seen.tree)
    root = seen.tree.root
    tier = str(root.attributes.get(names.TIER, ""))
    model = seen.summary.model or _asked_for(seen)
    own: dict[Source, dict[str, int]] = {}
    for section in seen.sections:
        span = section.span
        spent = own.setdefault(span.source, {})
        spent[span.name] = spent.get(span.name, 0) + section.end_ns - section.start_ns
    for source, spent in own.items():
        service, instance = source.service, source.instance
        said = _said(seen, service, instance)
        group = RequestGroup(service, instance, model, tier, seen.summary.cache)
        errors = RequestGroup(service, instance, model, root.name, "")
        longest = max(spent, key=lambda name: spent[name])
        failed = (
            origin is not None
            and origin.error not in CALLER_ERROR_CODES
            and origin.source.service == service
            and origin.source.instance == instance
        )
        values = _values(sum(spent.values()), said)
        yield FeatureVector(group, errors, values, f"{service} {longest}", failed, source.host)


def _asked_for(seen: SettledRequest) -> str:
    """The model that a request was bound for, where no answer says who gave it."""
    told = (
        str(span.attributes.get(name, ""))
        for span in seen.tree.spans
        for name in (names.REQUEST_MODEL, names.MODEL)
    )
    return next((model for model in told if model), "")


def _said(seen: SettledRequest, service: str, instance: str) -> dict[str, float]:
    """The numbers that a service's spans of this request carry."""
    found: dict[str, float] = {}
    for span in seen.tree.spans:
        if span.source.service == service and span.source.instance == instance:
            _read(span, found)
    return found


def _read(span: SpanView, into: dict[str, float]) -> None:
    for name in (
        names.QUEUED_MS,
        names.PAID,
        names.CONFIDENCE,
        names.INPUT_TOKENS,
        names.OUTPUT_TOKENS,
    ):
        value = span.attributes.get(name)
        if isinstance(value, int | float):
            into.setdefault(name, float(value))


def _values(own_ns: int, said: dict[str, float]) -> FeatureValues:
    tokens = said.get(names.INPUT_TOKENS, 0.0) + said.get(names.OUTPUT_TOKENS, 0.0)
    cost = said.get(names.PAID, 0.0) / tokens if tokens else 0.0
    queue_ms = max(0.0, said.get(names.QUEUED_MS, 0.0))
    return (
        math.log(max(own_ns, 1000) / 1e6),
        math.log1p(queue_ms),
        math.log1p(max(0.0, cost)),
        said.get(names.CONFIDENCE, 0.0),
    )


def in_unit(feature: int, value: float) -> float:
    """A vector's value in the feature's own unit."""
    return (math.exp, math.expm1, math.expm1, float)[feature](value)
