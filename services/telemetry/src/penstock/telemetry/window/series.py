"""The bounded window of metrics: series of points, cumulative counts turned into what happened
since the previous point. No gRPC.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.spans.spans import plain_attributes
from penstock.telemetry.window.distributions import quantile
from penstock.telemetry.window.series_key import SeriesKey

MAX_SERIES = 20_000
MAX_POINTS = 720
"""Points kept of each series: an hour at one every five seconds."""

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


class Point(NamedTuple):
    """One value; for a histogram the mean, count and quantiles since the previous point, and its
    buckets by index.
    """

    unix_s: float
    value: float
    seen: int = 0
    p50: float = 0.0
    p99: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Series:
    """One stream.

    `total`, `count` and `buckets` are the last cumulative state, which Prometheus is shown.

    `kind` is `histogram`, `sum` (of what only grows) or `gauge`.
    """

    key: SeriesKey
    instance: str
    unit: str
    kind: str
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    total: float = 0.0
    count: int = 0
    bounds: list[float] = field(default_factory=list)
    buckets: list[int] = field(default_factory=list)
    start_ns: int = 0


class SeriesWindow:
    """All series, the least recently written forgotten when there are too many."""

    def __init__(self, most: int = MAX_SERIES) -> None:
        self._most = most
        self._series: OrderedDict[tuple[SeriesKey, str], Series] = OrderedDict()
        self.metric_points = 0

    def take(
        self, service: str, instance: str, metric: metrics_pb2.Metric
    ) -> Iterator[tuple[Series, Point]]:
        """Take a metric's points; yields what is new of each series."""
        kind = metric.WhichOneof("data")
        if kind == "histogram":
            cumulative = metric.histogram.aggregation_temporality == CUMULATIVE
            for shape in metric.histogram.data_points:
                series = self._at(service, instance, metric, kind, shape)
                yield series, self._histogram(series, shape, cumulative)
        elif kind in ("gauge", "sum"):
            delta = kind == "sum" and metric.sum.aggregation_temporality != CUMULATIVE
            shown = "sum" if kind == "sum" and metric.sum.is_monotonic else "gauge"
            for number in getattr(metric, kind).data_points:
                series = self._at(service, instance, metric, shown, number)
                yield series, self._number(series, number, delta)

    def write(
        self, key: SeriesKey, instance: str, unit: str, unix_s: float, value: float
    ) -> Series:
        """Write a gauge of telemetry's own."""
        series = self._named(key, instance, unit, "gauge")
        series.total = value
        series.points.append(Point(unix_s, value))
        return series

    def _at(
        self,
        service: str,
        instance: str,
        metric: metrics_pb2.Metric,
        kind: str,
        point: metrics_pb2.NumberDataPoint | metrics_pb2.HistogramDataPoint,
    ) -> Series:
        labels = tuple(
            sorted((name, str(value)) for name, value in plain_attributes(point.attributes).items())
        )
        return self._named(SeriesKey(service, metric.name, labels), instance, metric.unit, kind)

    def _named(self, key: SeriesKey, instance: str, unit: str, kind: str) -> Series:
        self.metric_points += 1
        series = self._series.get((key, instance))
        if series is None:
            series = self._series[key, instance] = Series(key, instance, unit, kind)
            if len(self._series) > self._most:
                self._series.popitem(last=False)
        else:
            self._series.move_to_end((key, instance))
        return series

    def _number(self, series: Series, point: metrics_pb2.NumberDataPoint, delta: bool) -> Point:
        value = float(point.as_int if point.WhichOneof("value") == "as_int" else point.as_double)
        series.total = series.total + value if delta else value
        taken = Point(point.time_unix_nano / 1e9, series.total)
        series.points.append(taken)
        return taken

    def _histogram(
        self, series: Series, point: metrics_pb2.HistogramDataPoint, cumulative: bool
    ) -> Point:
        bounds, buckets = list(point.explicit_bounds), list(point.bucket_counts)
        restarted = series.start_ns != point.start_time_unix_nano or bounds != series.bounds
        if not cumulative or restarted or point.count < series.count:
            since, count, total = buckets, point.count, point.sum
        else:
            since = [now - before for now, before in zip(buckets, series.buckets, strict=True)]
            count, total = point.count - series.count, point.sum - series.total
        if cumulative or not series.buckets or bounds != series.bounds:
            series.buckets, series.count, series.total = buckets, point.count, point.sum
        else:
            series.buckets = [a + b for a, b in zip(series.buckets, buckets, strict=True)]
            series.count, series.total = series.count + point.count, series.total + point.sum
        series.bounds, series.start_ns = bounds, point.start_time_unix_nano
        sparse = {index: held for index, held in enumerate(since) if held > 0}
        mean = total / count if count else 0.0
        p50, p99 = quantile(sparse, count, 0.5, bounds), quantile(sparse, count, 0.99, bounds)
        taken = Point(point.time_unix_nano / 1e9, mean, count, p50, p99, tuple(sparse.items()))
        series.points.append(taken)
        return taken

    def names(self) -> list[str]:
        """Metric names held."""
        return sorted({key.metric for key, _ in self._series})

    def find(self, metric: str, service: str = "") -> list[Series]:
        """Series of a metric."""
        return [
            series
            for (key, _), series in self._series.items()
            if key.metric == metric and service in ("", key.service)
        ]

    def all(self) -> list[Series]:
        """Every series."""
        return list(self._series.values())


def labels_of(series: Series) -> Mapping[str, str]:
    """A series' labels with its service and instance."""
    return {"service": series.key.service, "instance": series.instance, **dict(series.key.labels)}
