"""Whether answers are what they were: each model's measures against a reference period, by the Page-Hinkley test. No clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.core import semantics as names
from penstock.telemetry.detection import Blame, Finding, RequestSeen

REFERENCE = 200
"""Observations that make the reference."""

MOST_ROWS = 1000

TOLD = ("confidence", "agreement")
"""Measures whose drift is an incident; the others follow the load and are only shown."""

SEVERITY = 5.0
"""Of a drift: the test's level gives one false alarm in some hundred thousand observations."""


@dataclass
class Measure:
    """One measure of one model. The Page-Hinkley sums run on values in standard deviations of the reference (Page 1954)."""

    observations: int = 0
    mean: float = 0.0
    squares: float = 0.0
    now: float = 0.0
    up: float = 0.0
    down: float = 0.0
    drifted: bool = False

    ALLOWED = 0.25
    ALARM = 25.0

    def add(self, value: float) -> None:
        """Take an observation."""
        self.observations += 1
        self.now = value if self.observations == 1 else self.now + (value - self.now) * max(0.02, 1 / self.observations)
        if self.observations <= REFERENCE:
            step = value - self.mean
            self.mean += step / self.observations
            self.squares += step * (value - self.mean)
            return
        deviation = max((self.squares / (REFERENCE - 1)) ** 0.5, abs(self.mean) * 0.01, 1e-9)
        z = max(-4.0, min(4.0, (value - self.mean) / deviation))
        self.up = max(0.0, self.up + z - self.ALLOWED)
        self.down = max(0.0, self.down - z - self.ALLOWED)
        if max(self.up, self.down) > self.ALARM:
            self.drifted = True
        elif max(self.up, self.down) < self.ALARM / 5:
            self.drifted = False
        self.up, self.down = min(self.up, 2 * self.ALARM), min(self.down, 2 * self.ALARM)


class Quality:
    """Measures by model, from settled requests."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Measure] = {}

    def take(self, seen: RequestSeen) -> list[Finding]:
        """Read what a request says of its model; what began to drift in answers' quality is a finding."""
        found: list[Finding] = []
        if not seen.summary.model or seen.summary.error:
            return found
        for name, value in measures(seen):
            row = self._rows.get((seen.summary.model, name))
            if row is None:
                if len(self._rows) >= MOST_ROWS:
                    return found
                row = self._rows[seen.summary.model, name] = Measure()
            was = row.drifted
            row.add(value)
            if row.drifted and not was and name in TOLD:
                found.append(_finding(seen, name, row))
        return found

    def rows(self) -> Iterator[tuple[str, str, Measure]]:
        """(model, measure, values)."""
        for (model, name), row in sorted(self._rows.items()):
            yield model, name, row


def _finding(seen: RequestSeen, name: str, row: Measure) -> Finding:
    model = seen.summary.model
    text = f"{model}: {name} {row.now:.3g} where {row.mean:.3g} was the reference"
    at_s = (seen.summary.start_ns + seen.summary.duration_ns) / 1e9
    blame = Blame(name, 1.0, row.now, row.mean)
    trace = seen.summary.trace_id.hex()
    return Finding(seen.summary.service, f"{model} {name}", "drift", at_s, SEVERITY, text, (blame,), "", (trace,))


def measures(seen: RequestSeen) -> Iterator[tuple[str, float]]:
    """What one request says: confidence, agreement with the reference, throughput per token, use of the context window, latency."""
    yield "latency_ms", seen.summary.duration_ns / 1e6
    for span in seen.tree.spans:
        said = span.attributes
        for name, key in (("confidence", names.CONFIDENCE), ("agreement", names.AGREEMENT)):
            if key in said and (name == "agreement" or "hit" not in seen.summary.cache):
                yield name, float(said[key])  # of a hit the confidence is the cache's, not the model's
        if names.FULL_PRICE in said or (names.COMPUTE_MS in said and names.INPUT_TOKENS in said):
            tokens = int(said.get(names.INPUT_TOKENS, 0)) + int(said.get(names.OUTPUT_TOKENS, 0))
            if tokens and span.duration_ns:
                yield "tokens_per_s", tokens / (span.duration_ns / 1e9)
        if names.CONTEXT_WINDOW in said and int(said[names.CONTEXT_WINDOW]):
            yield "context_use", int(said.get(names.INPUT_TOKENS, 0)) / int(said[names.CONTEXT_WINDOW])
