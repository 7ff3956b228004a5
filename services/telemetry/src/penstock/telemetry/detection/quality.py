"""Whether answers are as good as they were: each model's measures against a reference period.

A measure is a number that requests report of a model: its confidence, its latency, and so on. Its
first observations are the reference. From then on two sums watch for a change of the mean, upwards
and downwards (the Page-Hinkley test, Page 1954). Agreement, the result of audits, is right or wrong
and not a number; its one sum adds log likelihood ratios instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penstock.otel import attributes as semconv
from penstock.telemetry.detection.incidents import Contribution, Finding
from penstock.telemetry.spans.spans import Value
from penstock.telemetry.window.settled_traces import SettledRequest

REFERENCE_SIZE = 200
"""Observations that make the reference."""

AUDIT_REFERENCE_SIZE = 50
"""Observations that make the reference of agreement, because audits are rare."""

MAX_MEASURES = 1000
MAX_AUDITS_PER_POINT = 10_000
"""Audits counted of one metric point; a sender that reports more is at fault."""

ALLOWANCE = 0.25
"""Standard deviations by which a mean may differ from the reference."""

ALARM = 25.0
"""Level of the sums at which a measure has drifted, in standard deviations."""

BINARY_ALARM_NATS = math.log(1e4)
"""Level of the sum of log likelihood ratios: chance reaches it at most once in ten thousand
observations (Lorden 1971).
"""

DRIFT_SEVERITY = 5.0
"""ALARM is reached by chance about once in a hundred thousand observations."""

AGREEMENT = "agreement"
REPORTED_MEASURES = ("confidence", AGREEMENT)
"""Measures whose drift is a finding. The others follow the load and are only shown."""

ATTRIBUTE_MEASURES = (
    ("confidence", semconv.CONFIDENCE),
    (AGREEMENT, semconv.AGREEMENT),
    ("embedding", semconv.TYPICALITY),
)
"""(measure, span attribute)."""

MEASURED = frozenset(
    (
        *(attribute for _, attribute in ATTRIBUTE_MEASURES),
        semconv.FULL_PRICE,
        semconv.COMPUTE_MS,
        semconv.CONTEXT_WINDOW,
    )
)
"""Attributes of which a span has one where something can be measured in it."""


@dataclass
class QualityMeasure:
    """One measure of one model.

    Args:
        reference_size: observations that make the reference.
        is_binary: observations are 1 (right) or 0 (wrong).
    """

    reference_size: int = REFERENCE_SIZE
    is_binary: bool = False
    observations: int = 0
    reference_mean: float = 0.0
    recent_mean: float = 0.0
    has_drifted: bool = False
    squared_deviations: float = 0.0
    """Of the reference, summed."""
    sum_up: float = 0.0
    sum_down: float = 0.0

    def add(self, value: float) -> None:
        """Take an observation."""
        self.observations += 1
        weight = max(0.02, 1 / self.observations)
        self.recent_mean += (value - self.recent_mean) * weight
        if self.observations <= self.reference_size:
            deviation = value - self.reference_mean
            self.reference_mean += deviation / self.observations
            self.squared_deviations += deviation * (value - self.reference_mean)
        elif self.is_binary:
            self._test(0.0, self._log_likelihood_ratio(value), BINARY_ALARM_NATS)
        else:
            score = self._standard_score(value)
            self._test(score - ALLOWANCE, -score - ALLOWANCE, ALARM)

    def _test(self, up: float, down: float, alarm: float) -> None:
        """Add to both sums.

        The measure has drifted from when a sum passes the alarm until both are below a fifth of it.
        Sums end at twice the alarm, so that they come down again soon.
        """
        self.sum_up = max(0.0, self.sum_up + up)
        self.sum_down = max(0.0, self.sum_down + down)
        largest = max(self.sum_up, self.sum_down)
        if largest > alarm:
            self.has_drifted = True
        elif largest < alarm / 5:
            self.has_drifted = False
        self.sum_up = min(self.sum_up, 2 * alarm)
        self.sum_down = min(self.sum_down, 2 * alarm)

    def _standard_score(self, value: float) -> float:
        """The distance from the reference in standard deviations, at most 4 either way."""
        variance = self.squared_deviations / (self.reference_size - 1)
        deviation = max(math.sqrt(variance), abs(self.reference_mean) * 0.01, 1e-9)
        return max(-4.0, min(4.0, (value - self.reference_mean) / deviation))

    def _log_likelihood_ratio(self, value: float) -> float:
        """How much an observation speaks for a bad share of wrong answers against the reference's.

        Bad is four times the reference's share, at least a fifth.
        """
        wrong = (1.0 - self.reference_mean) * self.reference_size
        usual = min(0.5, (wrong + 1.0) / (self.reference_size + 2.0))
        bad = min(0.9, max(0.2, 4.0 * usual))
        if_right = math.log((1.0 - bad) / (1.0 - usual))
        if_wrong = math.log(bad / usual)
        return value * if_right + (1.0 - value) * if_wrong


class QualityMonitor:
    """The measures of every model."""

    def __init__(self) -> None:
        self._measures: dict[tuple[str, str], QualityMeasure] = {}

    def observe_request(self, request: SettledRequest) -> list[Finding]:
        """Take what a request reports of its model; returns a finding for each measure that began
        to drift.
        """
        summary = request.summary
        if not summary.model or summary.error:
            return []
        findings: list[Finding] = []
        for name, value in request_measures(request):
            if self._begins_to_drift(summary.model, name, value):
                trace_ids = (summary.trace_id.hex(),)
                findings.append(
                    self._finding(
                        summary.service, summary.model, name, request.end_unix_s, trace_ids
                    )
                )
        return findings

    def observe_audits(
        self, service: str, model: str, audits: int, agreement: float, unix_s: float
    ) -> list[Finding]:
        """Take audits of reused answers: how many, and the share that the model gave again.

        Wrong answers are counted as if spread evenly among the right ones.
        """
        findings: list[Finding] = []
        right = round(audits * agreement)
        for number in range(min(audits, MAX_AUDITS_PER_POINT)):
            value = float((number + 1) * right // audits - number * right // audits)
            if self._begins_to_drift(model, AGREEMENT, value):
                findings.append(self._finding(service, model, AGREEMENT, unix_s))
        return findings

    def rows(self) -> Iterator[tuple[str, str, QualityMeasure]]:
        """(model, name of the measure, measure), in order."""
        for (model, name), measure in sorted(self._measures.items()):
            yield model, name, measure

    def _begins_to_drift(self, model: str, name: str, value: float) -> bool:
        """Take an observation; returns whether it makes a reported measure drift."""
        measure = self._measure(model, name)
        if measure is None:
            return False
        had_drifted = measure.has_drifted
        measure.add(value)
        return measure.has_drifted and not had_drifted and name in REPORTED_MEASURES

    def _measure(self, model: str, name: str) -> QualityMeasure | None:
        """The measure, made when it is new; None when there are too many."""
        measure = self._measures.get((model, name))
        if measure is None and len(self._measures) < MAX_MEASURES:
            if name == AGREEMENT:
                measure = QualityMeasure(AUDIT_REFERENCE_SIZE, is_binary=True)
            else:
                measure = QualityMeasure()
            self._measures[model, name] = measure
        return measure

    def _finding(
        self, service: str, model: str, name: str, unix_s: float, trace_ids: tuple[str, ...] = ()
    ) -> Finding:
        measure = self._measures[model, name]
        now, reference = measure.recent_mean, measure.reference_mean
        return Finding(
            service,
            f"{model} {name}",
            "drift",
            unix_s,
            severity=DRIFT_SEVERITY,
            text=f"{model}: {name} {now:.3g} where {reference:.3g} was the reference",
            contributions=(Contribution(name, 1.0, now, reference),),
            trace_ids=trace_ids,
        )


def request_measures(request: SettledRequest) -> Iterator[tuple[str, float]]:
    """(measure, value) of everything that a request reports of its model."""
    yield "latency_ms", request.summary.duration_ns / 1e6
    for span in request.tree.spans:
        attributes = span.attributes
        if MEASURED.isdisjoint(attributes):
            continue
        for name, attribute in ATTRIBUTE_MEASURES:
            if attribute in attributes:
                yield name, float(attributes[attribute])
        tokens = _computed_tokens(attributes)
        if tokens and span.duration_ns:
            yield "tokens_per_s", tokens / (span.duration_ns / 1e9)
        if window_tokens := int(attributes.get(semconv.CONTEXT_WINDOW, 0)):
            yield "context_use", int(attributes.get(semconv.INPUT_TOKENS, 0)) / window_tokens


def _computed_tokens(attributes: Mapping[str, Value]) -> int:
    """Tokens, input and output, that a span's own duration produced; 0 for other spans."""
    has_receipt = semconv.FULL_PRICE in attributes
    has_compute = semconv.COMPUTE_MS in attributes and semconv.INPUT_TOKENS in attributes
    if not has_receipt and not has_compute:
        return 0
    input_tokens = int(attributes.get(semconv.INPUT_TOKENS, 0))
    return input_tokens + int(attributes.get(semconv.OUTPUT_TOKENS, 0))
