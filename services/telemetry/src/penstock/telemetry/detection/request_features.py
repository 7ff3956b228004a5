"""Features of a request for the request detector: one vector for each process on its critical
path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from penstock.otel import attributes as semconv
from penstock.telemetry.spans.spans import Source, SpanView, error_origin
from penstock.telemetry.window.settled_traces import SettledRequest

FEATURES = ("latency_ms", "queue_wait_ms", "cost_per_token_microusd", "confidence")
"""Vectors hold the first three as logarithms.

Confidence is the model's. The cache's confidence is left out, because it jumps whenever the cache
calibrates itself; whether reused answers are right is what audits say.
"""

SLOWDOWN_WEIGHTS = (1.0, 1.0, 0.0, 0.0)
"""Whether CPU pressure makes a feature larger."""

WORSE_DIRECTIONS = (1.0, 1.0, 1.0, -1.0)
"""In which direction a feature gets worse; a change for the better is no anomaly."""

MIN_DIFFERENCES = (0.10, 0.10, 0.05, 0.02)
"""A smaller difference from the baseline means nothing, however steady a feature has been."""

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
"""Codes that speak of the caller: it erred, gave up, or asked for too much. They are no failures of
the service.
"""

FeatureValues = tuple[float, ...]
"""One value for each of FEATURES."""


class RequestGroup(NamedTuple):
    """Requests that are compared with each other; texts are empty where they do not apply."""

    service: str
    instance: str
    model: str
    tier: str = ""
    cache: str = ""
    operation: str = ""

    def __str__(self) -> str:
        named = self.instance != self.service and ":" not in self.instance
        parts = (
            self.service,
            self.instance if named else "",
            self.model,
            self.tier,
            self.cache,
            self.operation,
        )
        return " ".join(part for part in parts if part)


NUMBERS = frozenset(
    (
        semconv.QUEUED_MS,
        semconv.PAID,
        semconv.CONFIDENCE,
        semconv.INPUT_TOKENS,
        semconv.OUTPUT_TOKENS,
    )
)
"""Attributes that features are made of."""


class FeatureVector(NamedTuple):
    """One request in one process."""

    group: RequestGroup
    """By model, tier and cache outcome: where its features are compared."""
    error_group: RequestGroup
    """By model and operation: where failures are counted. A failed request has no receipt, so
    neither tier nor cache outcome.
    """
    values: FeatureValues
    section: str
    """`service operation` where this process spent most time on the critical path."""
    failed: bool
    """Whether the request's error began in this process, and is not the caller's."""
    host: str = ""
    """Boot identifier of the machine."""


def feature_vectors(request: SettledRequest) -> Iterator[FeatureVector]:
    """One vector for each process on the critical path.

    Its latency is the time spent in the process itself. Queue wait, cost and confidence stand in
    the spans that carry them: those of the process that answered.
    """
    origin = error_origin(request.tree)
    root = request.tree.root
    tier = str(root.attributes.get(semconv.TIER, ""))
    model = request.summary.model or _requested_model(request)
    numbers = _numbers(request)
    for source, spent_ns in _own_time(request).items():
        longest = max(spent_ns, key=lambda name: spent_ns[name])
        yield FeatureVector(
            RequestGroup(source.service, source.instance, model, tier, request.summary.cache),
            RequestGroup(source.service, source.instance, model, operation=root.name),
            _values(sum(spent_ns.values()), numbers.get((source.service, source.instance), {})),
            f"{source.service} {longest}",
            _failed_in(source, origin),
            source.host,
        )


def _own_time(request: SettledRequest) -> dict[Source, dict[str, int]]:
    """Nanoseconds on the critical path by process and operation."""
    own: dict[Source, dict[str, int]] = {}
    for section in request.critical_path:
        span = section.span
        spent_ns = own.setdefault(span.source, {})
        spent_ns[span.name] = spent_ns.get(span.name, 0) + section.end_ns - section.start_ns
    return own


def _failed_in(source: Source, origin: SpanView | None) -> bool:
    return (
        origin is not None
        and origin.error not in CALLER_ERROR_CODES
        and origin.source.service == source.service
        and origin.source.instance == source.instance
    )


def _requested_model(request: SettledRequest) -> str:
    """The model that was asked for, where no answer says which model gave it."""
    for span in request.tree.spans:
        for name in (semconv.REQUEST_MODEL, semconv.MODEL):
            if model := str(span.attributes.get(name, "")):
                return model
    return ""


def _numbers(request: SettledRequest) -> dict[tuple[str, str], dict[str, float]]:
    """By (service, instance) the numbers that its spans of this request carry; of each the
    first.
    """
    by_process: dict[tuple[str, str], dict[str, float]] = {}
    for span in request.tree.spans:
        if NUMBERS.isdisjoint(span.attributes):
            continue
        numbers = by_process.setdefault((span.source.service, span.source.instance), {})
        for name in NUMBERS.intersection(span.attributes):
            value = span.attributes[name]
            if isinstance(value, (int, float)):
                numbers.setdefault(name, float(value))
    return by_process


def _values(own_ns: int, numbers: Mapping[str, float]) -> FeatureValues:
    tokens = numbers.get(semconv.INPUT_TOKENS, 0.0) + numbers.get(semconv.OUTPUT_TOKENS, 0.0)
    cost_per_token = numbers.get(semconv.PAID, 0.0) / tokens if tokens else 0.0
    return (
        math.log(max(own_ns, 1000) / 1e6),
        math.log1p(max(0.0, numbers.get(semconv.QUEUED_MS, 0.0))),
        math.log1p(max(0.0, cost_per_token)),
        numbers.get(semconv.CONFIDENCE, 0.0),
    )


def in_unit(feature: int, value: float) -> float:
    """A value of a vector in the unit of its feature, which is given by index."""
    return (math.exp, math.expm1, math.expm1, float)[feature](value)
