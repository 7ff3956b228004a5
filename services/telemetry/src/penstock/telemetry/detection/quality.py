"""Whether answers are what they were: each model's measures against a reference period, by the
Page-Hinkley test. No clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.otel import attributes as names
from penstock.telemetry.detection.findings import Contribution, Finding
from penstock.telemetry.window.settled import SettledRequest

REFERENCE = 200
"""Observations that make the reference."""

FEW = 50
"""Observations that make the reference of agreement: audits are rare, and each says yes or no."""

MAX_MEASURES = 1000
MAX_AUDITS_PER_POINT = 10_000
"""Of one point: a sender that says more is not believed."""

AGREEMENT = "agreement"

TOLD = ("confidence", AGREEMENT)
"""Measures whose drift is an incident; the others follow the load and are only shown."""

SEVERITY = 5.0
"""Of a drift: the test's level gives one false alarm in some hundred thousand observations."""

YES_OR_NO_ALARM = math.log(1e4)
"""Nats: such a sum of likelihood ratios is reached by chance once in ten thousand observations at
most (Lorden 1971); audits are rare.
"""


@dataclass
class QualityMeasure:
    """One measure of one model.

    The Page-Hinkley sums run on values in standard deviations of the reference (Page 1954).
    """

    observations: int = 0
    mean: float = 0.0
    squares: float = 0.0
    now: float = 0.0
    up: float = 0.0
    down: float = 0.0
    drifted: bool = False
    reference: int = REFERENCE
    yes_or_no: bool = False

    ALLOWED = 0.25
    ALARM = 25.0

    def add(self, value: float) -> None:
        """Take an observation."""
        self.observations += 1
        self.now = (
            value
            if self.observations == 1
            else self.now + (value - self.now) * max(0.02, 1 / self.observations)
        )
        if self.observations <= self.reference:
            step = value - self.mean
            self.mean += step / self.observations
            self.squares += step * (value - self.mean)
            return
        up, down = self._ratios(value) if self.yes_or_no else self._distances(value)
        alarm = YES_OR_NO_ALARM if self.yes_or_no else self.ALARM
        self.up, self.down = max(0.0, self.up + up), max(0.0, self.down + down)
        if max(self.up, self.down) > alarm:
            self.drifted = True
        elif max(self.up, self.down) < alarm / 5:
            self.drifted = False
        self.up, self.down = min(self.up, 2 * alarm), min(self.down, 2 * alarm)

    def _distances(self, value: float) -> tuple[float, float]:
        """Steps up and down of a number."""
        deviation = max((self.squares / (self.reference - 1)) ** 0.5, abs(self.mean) * 0.01, 1e-9)
        z = max(-4.0, min(4.0, (value - self.mean) / deviation))
        return z - self.ALLOWED, -z - self.ALLOWED

    def _ratios(self, value: float) -> tuple[float, float]:
        """Steps of right (1) or wrong (0): log likelihood ratios of four times the reference's
        share of wrong ones, or a fifth.
        """
        wrong = (1.0 - self.mean) * self.reference
        usual = min(0.5, (wrong + 1.0) / (self.reference + 2.0))
        feared = min(0.9, max(0.2, 4.0 * usual))
        right = math.log((1.0 - feared) / (1.0 - usual))
        return 0.0, value * right + (1.0 - value) * math.log(feared / usual)


class QualityMonitor:
    """Measures by model, from settled requests."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], QualityMeasure] = {}

    def take(self, seen: SettledRequest) -> list[Finding]:
        """Read what a request says of its model; what began to drift in answers' quality is a
        finding.
        """
        found: list[Finding] = []
        if not seen.summary.model or seen.summary.error:
            return found
        root, model = seen.summary, seen.summary.model
        at_s = (root.start_ns + root.duration_ns) / 1e9
        for name, value in measures(seen):
            if (row := self._drifts(model, name, value)) is not None:
                found.append(
                    _finding(root.service, (model, name), at_s, row, (root.trace_id.hex(),))
                )
        return found

    def observe_audits(
        self, service: str, model: str, audits: int, agreed: float, at_s: float
    ) -> list[Finding]:
        """Read audits of answers that were reused: how many, and the share that the model gave
        again.
        """
        found: list[Finding] = []
        right = round(audits * agreed)
        for number in range(min(audits, MAX_AUDITS_PER_POINT)):
            # The wrong ones lie evenly among the others, as far as anybody knows.
            value = float((number + 1) * right // audits - number * right // audits)
            if (row := self._drifts(model, AGREEMENT, value)) is not None:
                found.append(_finding(service, (model, AGREEMENT), at_s, row, ()))
        return found

    def _drifts(self, model: str, name: str, value: float) -> QualityMeasure | None:
        """Take an observation; the measure when it begins to drift and somebody is to be told."""
        row = self._rows.get((model, name))
        if row is None:
            if len(self._rows) >= MAX_MEASURES:
                return None
            row = self._rows[model, name] = (
                QualityMeasure(reference=FEW, yes_or_no=True)
                if name == AGREEMENT
                else QualityMeasure()
            )
        was = row.drifted
        row.add(value)
        return row if row.drifted and not was and name in TOLD else None

    def rows(self) -> Iterator[tuple[str, str, QualityMeasure]]:
        """(model, measure, values)."""
        for (model, name), row in sorted(self._rows.items()):
            yield model, name, row


def _finding(
    service: str,
    row: tuple[str, str],
    at_s: float,
    measure: QualityMeasure,
    traces: tuple[str, ...],
) -> Finding:
    model, name = row
    text = f"{model}: {name} {measure.now:.3g} where {measure.mean:.3g} was the reference"
    contribution = Contribution(name, 1.0, measure.now, measure.mean)
    return Finding(
        service, f"{model} {name}", "drift", at_s, SEVERITY, text, (contribution,), "", traces
    )


SAID = (
    ("confidence", names.CONFIDENCE),
    (AGREEMENT, names.AGREEMENT),
    ("embedding", names.TYPICALITY),
)


def measures(seen: SettledRequest) -> Iterator[tuple[str, float]]:
    """What one request says: confidence, agreement, how usual its embedding is, throughput per
    token, use of the window, latency.
    """
    yield "latency_ms", seen.summary.duration_ns / 1e6
    for span in seen.tree.spans:
        said = span.attributes
        for name, key in SAID:
            if key in said:
                yield name, float(said[key])
        if names.FULL_PRICE in said or (names.COMPUTE_MS in said and names.INPUT_TOKENS in said):
            tokens = int(said.get(names.INPUT_TOKENS, 0)) + int(said.get(names.OUTPUT_TOKENS, 0))
            if tokens and span.duration_ns:
                yield "tokens_per_s", tokens / (span.duration_ns / 1e9)
        if names.CONTEXT_WINDOW in said and int(said[names.CONTEXT_WINDOW]):
            yield (
                "context_use",
                int(said.get(names.INPUT_TOKENS, 0)) / int(said[names.CONTEXT_WINDOW]),
            )
