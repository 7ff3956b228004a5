"""Counters and histograms that cost a look-up in a dictionary for each call.

OpenTelemetry's own take some ten microseconds to find the views and the aggregation of one
measurement. These only add up, on the event loop; the exporter's thread reads the sums and makes
OpenTelemetry's metrics of them. Nothing is locked: a count that is read while it changes is right
at the next export.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from penstock.rpc.spans import Attributes, Value

SCOPE = InstrumentationScope("penstock.instruments", "0.1.0")
BOUNDS = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
"""Upper bounds of a histogram's buckets: OpenTelemetry's default."""
MAX_SETS = 2000
"""Sets of attributes that an instrument tells apart, as in OpenTelemetry's specification."""
OVERFLOW = (("otel.metric.overflow", True),)
"""What any further ones are counted under."""

Key = tuple[tuple[str, Value], ...]
T = TypeVar("T")


class Description(NamedTuple):
    """What an instrument measures."""

    name: str
    unit: str
    text: str


class _Sets(Generic[T]):
    """What is kept for each set of attributes."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._rows: dict[Key, T] = {}

    def key(self, attributes: Attributes | None) -> Key:
        """Under which the attributes are counted; their order is that in which they are written."""
        key = tuple(attributes.items()) if attributes else ()
        return key if key in self._rows or len(self._rows) < MAX_SETS else OVERFLOW


class CumulativeCounter(_Sets[float]):
    """A sum that only grows, for each set of attributes."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None:
        """See `penstock.otel.telemetry.Counter`."""
        key = self.key(attributes)
        self._rows[key] = self._rows.get(key, 0) + amount

    def metric(self, started_ns: int, now_ns: int) -> Metric | None:
        """The sums since the start, both times in Unix nanoseconds; None where there are none."""
        points = [
            NumberDataPoint(dict(key), started_ns, now_ns, total)
            for key, total in list(self._rows.items())
        ]
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        name, unit, text = self._description
        return Metric(name, text, unit, data) if points else None


class _Distribution:
    """Not frozen: it counts."""

    __slots__ = ("buckets", "largest", "smallest", "total")

    def __init__(self, first: float) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.smallest = self.largest = first


class CumulativeHistogram(_Sets[_Distribution]):
    """A distribution, for each set of attributes."""

    def record(self, amount: float, attributes: Attributes | None = None) -> None:
        """See `penstock.otel.telemetry.Histogram`."""
        key = self.key(attributes)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Distribution(amount)
        row.buckets[bisect_left(BOUNDS, amount)] += 1
        row.total += amount
        if amount > row.largest:
            row.largest = amount
        elif amount < row.smallest:
            row.smallest = amount

    def metric(self, started_ns: int, now_ns: int) -> Metric | None:
        """The distributions since the start; None where there are none."""
        points = []
        for key, row in list(self._rows.items()):
            buckets = list(row.buckets)
            points.append(
                HistogramDataPoint(
                    dict(key),
                    started_ns,
                    now_ns,
                    sum(buckets),
                    row.total,
                    buckets,
                    BOUNDS,
                    row.smallest,
                    row.largest,
                )
            )
        data = Histogram(points, AggregationTemporality.CUMULATIVE)
        name, unit, text = self._description
        return Metric(name, text, unit, data) if points else None


Instrument = TypeVar("Instrument", CumulativeCounter, CumulativeHistogram)


class Instruments:
    """The counters and histograms of one service."""

    def __init__(self) -> None:
        self._made: dict[str, CumulativeCounter | CumulativeHistogram] = {}

    def counter(self, description: Description) -> CumulativeCounter:
        """The counter of that name, made where it is new."""
        return self._make(CumulativeCounter, description)

    def histogram(self, description: Description) -> CumulativeHistogram:
        """The histogram of that name, made where it is new."""
        return self._make(CumulativeHistogram, description)

    def _make(self, kind: type[Instrument], description: Description) -> Instrument:
        instrument = self._made.setdefault(description.name, kind(description))
        if not isinstance(instrument, kind):
            raise ValueError(f"{description.name} is another kind of instrument already")
        return instrument

    def scopes(self, started_ns: int, now_ns: int) -> Sequence[ScopeMetrics]:
        """What they say now, in Unix nanoseconds; empty where nothing was recorded."""
        made = [each.metric(started_ns, now_ns) for each in list(self._made.values())]
        metrics = [metric for metric in made if metric is not None]
        return [ScopeMetrics(SCOPE, metrics, "")] if metrics else []
