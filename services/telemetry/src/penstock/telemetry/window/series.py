"""The bounded window of metrics: series of points, one for each metric, instance and set of labels.

Senders report sums and histograms as running totals. A point holds what happened since the previous
one, so that rates and quantiles can be read from it; the series beside its points holds the last
running totals, which Prometheus is shown.

A series goes when nothing was written to it for minutes: its writer is gone, or no longer reports
it. A sender of increments reports only what has changed, so its series stay while it is heard of at
all. Beyond the window's bytes, the series not written for longest goes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.telemetry.spans.spans import plain_attributes, text_of
from penstock.telemetry.window.histograms import (
    Explicit,
    Range,
    Totals,
    increase,
    quantile_of,
    read_explicit,
    read_exponential,
    sum_of,
)

MAX_SERIES = 20_000
MAX_SERIES_BYTES = 128 << 20
MAX_POINTS = 720
"""Points of each series: an hour at one every five seconds."""

EXPIRY_S = 300.0
"""A series that nothing was written to for so long has ended, as in Prometheus."""

SERIES_BYTES, POINT_BYTES, RANGE_BYTES = 900, 240, 100
"""About what a series without points, a point without ranges, and a range of it take in memory."""

MAX_EXEMPLARS = 64
"""Exemplars that a series holds, one for each bucket."""

NO_RECORDED_VALUE = metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
HISTOGRAMS = ("histogram", "exponential_histogram")


@dataclass(frozen=True, slots=True, order=True)
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
    ranges: tuple[Range, ...] = ()
    """The buckets that are not empty."""


class Exemplar(NamedTuple):
    """A trace that shows what a histogram or counter counts."""

    trace_id: str
    value: float
    unix_s: float


@dataclass(slots=True)
class Series:
    """The points of one metric, instance and set of labels, and its last running totals."""

    key: SeriesKey
    instance: str
    unit: str
    kind: str
    """`histogram`, `sum` (of what only grows) or `gauge`."""
    is_delta: bool = False
    """Whether its sender reports increments."""
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    total: float = 0
    """The last value; of a histogram the sum of all observations."""
    count: int = 0
    totals: Totals | None = None
    """Of a histogram, all that it has counted."""
    start_ns: int = 0
    """Since when a histogram's totals count, as its sender says."""
    written_s: float = 0.0
    """When a point was last written, in Unix seconds of this process."""
    size_bytes: int = SERIES_BYTES
    exemplars: dict[float, Exemplar] = field(default_factory=dict)
    """The last exemplar by the upper bound of its bucket; of a counter at 0."""

    @property
    def buckets(self) -> Explicit:
        """All that a histogram has counted, in buckets with explicit bounds."""
        return self.totals.explicit() if self.totals is not None else Explicit((), ())

    def append(self, point: Point) -> int:
        """Add a point; returns by how many bytes the series has grown."""
        grown = _bytes_of(point)
        if len(self.points) == MAX_POINTS:
            grown -= _bytes_of(self.points[0])
        self.points.append(point)
        self.size_bytes += grown
        return grown


def _bytes_of(point: Point) -> int:
    return POINT_BYTES + RANGE_BYTES * len(point.ranges)


@dataclass(slots=True)
class Writer:
    """A process that sends metrics."""

    attributes: Mapping[str, str]
    """Of its resource."""
    heard_s: float


class SeriesWindow:
    """All series and who writes them.

    Args:
        max_series: beyond it, the series not written for longest is forgotten.
        max_bytes: the same for the memory that all take, as estimated.
    """

    def __init__(self, max_series: int = MAX_SERIES, max_bytes: int = MAX_SERIES_BYTES) -> None:
        self._max_series = max_series
        self._max_bytes = max_bytes
        self._series: OrderedDict[tuple[SeriesKey, str], Series] = OrderedDict()
        """The one not written for longest stands first."""
        self._writers: OrderedDict[tuple[str, str], Writer] = OrderedDict()
        """By (service, instance)."""
        self.metric_points = 0
        """Points written so far."""
        self.held_bytes = 0
        """Memory that all take, as estimated."""
        self.expired = 0
        """Series that ended because nothing was written to them."""

    def hear_from(
        self, service: str, instance: str, attributes: Mapping[str, str], now_s: float
    ) -> None:
        """Note that a process has sent an export, and what its resource says."""
        writer = self._writers.pop((service, instance), None) or Writer({}, now_s)
        writer.attributes, writer.heard_s = attributes, now_s
        self._writers[service, instance] = writer
        if len(self._writers) > self._max_series:
            self._writers.popitem(last=False)

    def writers(self) -> list[tuple[str, str, Mapping[str, str]]]:
        """(service, instance, attributes of the resource) of all that send metrics."""
        return [(*key, writer.attributes) for key, writer in self._writers.items()]

    def record(
        self, service: str, instance: str, metric: metrics_pb2.Metric, now_s: float
    ) -> Iterator[tuple[Series, Point]]:
        """Write a metric's points as they are iterated; yields each with its series."""
        kind = metric.WhichOneof("data")
        if kind is None or kind == "summary":
            return
        data = getattr(metric, kind)
        is_delta = kind != "gauge" and data.aggregation_temporality != CUMULATIVE
        shown = _shown_kind(kind, data)
        for reported in data.data_points:
            key = SeriesKey(service, metric.name, _labels(reported))
            if has_no_value(reported):
                self._end(key, instance, reported.time_unix_nano / 1e9)
                continue
            series = self._series_of(key, instance, metric.unit, shown)
            series.is_delta = is_delta
            if kind in HISTOGRAMS:
                point = _histogram_point(series, reported, is_delta)
            else:
                point = _number_point(series, reported, is_delta)
            _keep_exemplars(series, reported)
            self._append(series, point, now_s)
            yield series, point

    def record_gauge(
        self, key: SeriesKey, instance: str, unit: str, unix_s: float, value: float
    ) -> Series:
        """Write a value of telemetry's own."""
        series = self._series_of(key, instance, unit, "gauge")
        series.total = value
        self._append(series, Point(unix_s, value), unix_s)
        return series

    def _series_of(self, key: SeriesKey, instance: str, unit: str, kind: str) -> Series:
        series = self._series.get((key, instance))
        if series is None or series.kind != kind:
            self._remove(key, instance)
            series = self._series[key, instance] = Series(key, instance, unit, kind)
            series.size_bytes += sum(len(name) + len(value) for name, value in key.labels)
            self.held_bytes += series.size_bytes
        else:
            self._series.move_to_end((key, instance))
        return series

    def _append(self, series: Series, point: Point, now_s: float) -> None:
        self.metric_points += 1
        series.written_s = now_s
        self.held_bytes += series.append(point)
        while len(self._series) > self._max_series or (
            self.held_bytes > self._max_bytes and len(self._series) > 1
        ):
            self._remove(*next(iter(self._series)))

    def _end(self, key: SeriesKey, instance: str, unix_s: float) -> None:
        """End a series whose sender says so, unless a later point was written to it."""
        series = self._series.get((key, instance))
        if series is not None and series.points and unix_s > series.points[-1].unix_s:
            self._remove(key, instance)

    def _remove(self, key: SeriesKey, instance: str) -> None:
        series = self._series.pop((key, instance), None)
        if series is not None:
            self.held_bytes -= series.size_bytes

    def expire(self, now_s: float) -> None:
        """Forget series that nothing was written to for EXPIRY_S, and writers not heard of."""
        ended_s = now_s - EXPIRY_S
        while self._writers and next(iter(self._writers.values())).heard_s < ended_s:
            self._writers.popitem(last=False)
        for (key, instance), series in list(self._series.items()):
            if series.written_s >= ended_s:
                break
            if not (series.is_delta and (key.service, instance) in self._writers):
                self._remove(key, instance)
                self.expired += 1

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


def has_no_value(point: Any) -> bool:
    """Whether a reported point says that its series has ended."""
    return bool(point.flags & NO_RECORDED_VALUE)


def _shown_kind(kind: str, data: Any) -> str:
    if kind in HISTOGRAMS:
        return "histogram"
    return "sum" if kind == "sum" and data.is_monotonic else "gauge"


def _labels(point: Any) -> tuple[tuple[str, str], ...]:
    attributes = plain_attributes(point.attributes)
    return tuple(sorted((name, text_of(value)) for name, value in attributes.items()))


def _number_point(series: Series, number: metrics_pb2.NumberDataPoint, is_delta: bool) -> Point:
    value = number_value(number)
    series.total = series.total + value if is_delta else value
    return Point(number.time_unix_nano / 1e9, series.total)


def _histogram_point(series: Series, reported: Any, is_delta: bool) -> Point:
    """The point of a report, after the series' totals have taken it in."""
    is_explicit = isinstance(reported, metrics_pb2.HistogramDataPoint)
    totals = read_explicit(reported) if is_explicit else read_exponential(reported)
    before = series.totals
    new: Totals | None = totals
    if is_delta:
        running = totals if before is None else sum_of(before, totals)
    else:
        running = totals
        if before is not None and series.start_ns == reported.start_time_unix_nano:
            new = increase(before, totals) or totals
    if before is not None and before.explicit().bounds != running.explicit().bounds:
        series.exemplars.clear()
    series.totals, series.count, series.total = running, running.count, running.total
    series.start_ns = reported.start_time_unix_nano
    return _point_of(reported.time_unix_nano / 1e9, new or totals)


def _point_of(unix_s: float, new: Totals) -> Point:
    ranges = new.explicit().ranges()
    return Point(
        unix_s,
        new.total / new.count if new.count else 0.0,
        new.count,
        quantile_of(ranges, 0.5),
        quantile_of(ranges, 0.99),
        ranges,
    )


def _keep_exemplars(series: Series, reported: Any) -> None:
    for exemplar in reported.exemplars:
        if len(exemplar.trace_id) != 16 or not any(exemplar.trace_id):
            continue
        value = number_value(exemplar)
        bounds = series.buckets.bounds if series.kind == "histogram" else (0.0,)
        upper = next((bound for bound in bounds if value <= bound), float("inf"))
        if series.kind != "histogram":
            upper = 0.0
        if upper in series.exemplars or len(series.exemplars) < MAX_EXEMPLARS:
            series.exemplars[upper] = Exemplar(
                exemplar.trace_id.hex(), value, exemplar.time_unix_nano / 1e9
            )


def number_value(number: metrics_pb2.NumberDataPoint | metrics_pb2.Exemplar) -> float:
    """The value of a point or exemplar, of whichever type; whole ones stay exact."""
    return number.as_int if number.WhichOneof("value") == "as_int" else number.as_double


def series_labels(series: Series) -> Mapping[str, str]:
    """A series' labels, with its service and instance."""
    return {**dict(series.key.labels), "service": series.key.service, "instance": series.instance}
