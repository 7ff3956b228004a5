"""Whether answers are what they were: each model's measures against a reference period, by the Page-Hinkley test. No clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.core import semantics as names
from penstock.telemetry.detection import RequestSeen

REFERENCE = 200
"""Observations that make the reference."""

MOST_ROWS = 1000


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

    def take(self, seen: RequestSeen) -> None:
        """Read what a request says of its model."""
        if not seen.summary.model or seen.summary.error:
            return
        for name, value in measures(seen):
            row = self._rows.get((seen.summary.model, name))
            if row is None:
                if len(self._rows) >= MOST_ROWS:
                    return
                row = self._rows[seen.summary.model, name] = Measure()
            row.add(value)

    def rows(self) -> Iterator[tuple[str, str, Measure]]:
        """(model, measure, values)."""
        for (model, name), row in sorted(self._rows.items()):
            yield model, name, row


def measures(seen: RequestSeen) -> Iterator[tuple[str, float]]:
    """What one request says: confidence, agreement with the reference, throughput per token, use of the context window, latency."""
    yield "latency_ms", seen.summary.duration_ns / 1e6
    for span in seen.tree.spans:
        said = span.attributes
        for name, key in (("confidence", names.CONFIDENCE), ("agreement", names.AGREEMENT)):
            if key in said:
                yield name, float(said[key])
        if names.FULL_PRICE in said or (names.COMPUTE_MS in said and names.INPUT_TOKENS in said):
            tokens = int(said.get(names.INPUT_TOKENS, 0)) + int(said.get(names.OUTPUT_TOKENS, 0))
            if tokens and span.duration_ns:
                yield "tokens_per_s", tokens / (span.duration_ns / 1e9)
        if names.CONTEXT_WINDOW in said and int(said[names.CONTEXT_WINDOW]):
            yield "context_use", int(said.get(names.INPUT_TOKENS, 0)) / int(said[names.CONTEXT_WINDOW])
