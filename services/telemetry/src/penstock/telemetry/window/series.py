"""The bounded window of metrics: series of points, one for each metric, instance and set of labels.

Senders report sums and histograms as running totals. A point holds what happened since the previous
one, so that rates and quantiles can be read from it; the series beside its points holds the last
running totals, which Prometheus is shown.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.spans.spans import plain_attributes
from penstock.telemetry.window.distributions import quantile

MAX_SERIES = 20_000
MAX_POINTS = 720
"""Points of each series: an hour at one every five seconds."""

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """A metric of a service with its labels, over all instances."""

    service: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()


class Point(NamedTuple):
    """A value at a moment; of a histogram, what was observed since the previous point."""

    unix_s: float
    value: float
    """Of a histogram the mean."""
    observations: int = 0
    p50: float = 0.0
    p99: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()
    """(index, count) of the buckets that are not empty."""


@dataclass(slots=True)
class Series:
    """The points of one metric, instance and set of labels, and its last running totals."""

    key: SeriesKey
    instance: str
    unit: str
    kind: str
    """`histogram`, `sum` (of what only grows) or `gauge`."""
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    total: float = 0.0
    """The last value; of a histogram the sum of all observations."""
    count: int = 0
    bounds: list[float] = field(default_factory=list)
    buckets: list[int] = field(default_factory=list)
    start_ns: int = 0
    """Since when a histogram's totals count, as its sender says."""


class SeriesWindow:
    """All series; beyond `max_series`, the one not written for longest is forgotten."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._series: OrderedDict[tuple[SeriesKey, str], Series] = OrderedDict()
        self.metric_points = 0
        """Points written so far."""

    def record(
        self, service: str, instance: str, metric: metrics_pb2.Metric
    ) -> Iterator[tuple[Series, Point]]:
        """Write a metric's points as they are iterated; yields each with its series."""
        kind = metric.WhichOneof("data")
        if kind == "histogram":
            cumulative = metric.histogram.aggregation_temporality == CUMULATIVE
            for histogram in metric.histogram.data_points:
                series = self._series_of(service, instance, metric, kind, histogram)
                yield series, _record_histogram(series, histogram, cumulative)
        elif kind in ("gauge", "sum"):
            is_delta = kind == "sum" and metric.sum.aggregation_temporality != CUMULATIVE
            grows = kind == "sum" and metric.sum.is_monotonic
            for number in getattr(metric, kind).data_points:
                series = self._series_of(
                    service, instance, metric, "sum" if grows else "gauge", number
                )
                yield series, _record_number(series, number, is_delta)

    def record_gauge(
        self, key: SeriesKey, instance: str, unit: str, unix_s: float, value: float
    ) -> Series:
        """Write a value of telemetry's own."""
        series = self._named_series(key, instance, unit, "gauge")
        series.total = value
        series.points.append(Point(unix_s, value))
        return series

    def _series_of(
        self,
        service: str,
        instance: str,
        metric: metrics_pb2.Metric,
        kind: str,
        point: metrics_pb2.NumberDataPoint | metrics_pb2.HistogramDataPoint,
    ) -> Series:
        attributes = plain_attributes(point.attributes)
        labels = tuple(sorted((name, str(value)) for name, value in attributes.items()))
        key = SeriesKey(service, metric.name, labels)
        return self._named_series(key, instance, metric.unit, kind)

    def _named_series(self, key: SeriesKey, instance: str, unit: str, kind: str) -> Series:
        self.metric_points += 1
        series = self._series.get((key, instance))
        if series is None:
            series = self._series[key, instance] = Series(key, instance, unit, kind)
            if len(self._series) > self._max_series:
                self._series.popitem(last=False)
        else:
            self._series.move_to_end((key, instance))
        return series

    def metric_names(self) -> list[str]:
        """The names of all metrics."""
        return sorted({key.metric for key, _ in self._series})

    def find(self, metric: str, service: str = "") -> list[Series]:
        """The series of a metric, of one service or of all."""
        return [
            series
            for (key, _), series in self._series.items()
            if key.metric == metric and service in ("", key.service)
        ]

    def all(self) -> list[Series]:
        """Every series."""
        return list(self._series.values())


def _record_number(series: Series, number: metrics_pb2.NumberDataPoint, is_delta: bool) -> Point:
    value = number_value(number)
    series.total = series.total + value if is_delta else value
    point = Point(number.time_unix_nano / 1e9, series.total)
    series.points.append(point)
    return point


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a histogram has counted, in a period or since its start."""

    buckets: list[int]
    count: int
    total: float


def _record_histogram(
    series: Series, histogram: metrics_pb2.HistogramDataPoint, cumulative: bool
) -> Point:
    bounds = list(histogram.explicit_bounds)
    reported = _Totals(list(histogram.bucket_counts), histogram.count, histogram.sum)
    new = reported
    if cumulative and _continues(series, histogram, bounds):
        new = _Totals(
            [now - before for now, before in zip(reported.buckets, series.buckets, strict=True)],
            reported.count - series.count,
            reported.total - series.total,
        )
    running = reported
    if not cumulative and series.buckets and bounds == series.bounds:
        running = _Totals(
            [sum(pair) for pair in zip(series.buckets, reported.buckets, strict=True)],
            series.count + reported.count,
            series.total + reported.total,
        )
    series.buckets = running.buckets
    series.count = running.count
    series.total = running.total
    series.bounds = bounds
    series.start_ns = histogram.start_time_unix_nano
    point = _histogram_point(histogram.time_unix_nano / 1e9, new, bounds)
    series.points.append(point)
    return point


def _continues(
    series: Series, histogram: metrics_pb2.HistogramDataPoint, bounds: list[float]
) -> bool:
    """Whether running totals go on from the series' last: the sender has not restarted."""
    return (
        series.start_ns == histogram.start_time_unix_nano
        and bounds == series.bounds
        and histogram.count >= series.count
    )


def _histogram_point(unix_s: float, new: _Totals, bounds: list[float]) -> Point:
    buckets = {index: count for index, count in enumerate(new.buckets) if count > 0}
    return Point(
        unix_s,
        new.total / new.count if new.count else 0.0,
        new.count,
        quantile(buckets, new.count, 0.5, bounds),
        quantile(buckets, new.count, 0.99, bounds),
        tuple(buckets.items()),
    )


def number_value(number: metrics_pb2.NumberDataPoint) -> float:
    """The value of a point, whichever of its two types it has."""
    return float(number.as_int if number.WhichOneof("value") == "as_int" else number.as_double)


def series_labels(series: Series) -> Mapping[str, str]:
    """A series' labels, with its service and instance."""
    return {"service": series.key.service, "instance": series.instance, **dict(series.key.labels)}
