"""Metric points for the detectors: each metric as one value every 15 seconds, over all instances.

A gauge becomes its mean, a counter its rate, a histogram its mean and its rate of observations. The
clock is that of the points.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from penstock.telemetry.window.series import Point, Series, SeriesKey

SAMPLE_INTERVAL_S = 15.0
MAX_STREAMS = 20_000
MAX_INSTANCES = 200
"""Instances of one metric whose last counts are remembered; the one that has not reported for
longest is forgotten first.
"""

RATE_SUFFIX = ":rate"
"""Appended to a histogram's name for its observations a second; the name alone is their mean."""


@dataclass(slots=True)
class _Interval:
    """What came since the last sample."""

    since_s: float
    total: float = 0.0
    weight: float = 0.0
    last_counts: dict[str, float] = field(default_factory=dict)
    """A counter's last total by instance, to derive increments from."""

    def add(self, series: Series, point: Point) -> None:
        if series.kind == "histogram":
            self.total += point.value * point.observations
            self.weight += point.observations
        elif series.kind == "sum":
            self.total += self._increment(series.instance, point.value)
        else:
            self.total += point.value
            self.weight += 1.0

    def _increment(self, instance: str, total: float) -> float:
        """By how much an instance's counter grew; 0 for a new or restarted one."""
        before = self.last_counts.pop(instance, None)
        self.last_counts[instance] = total
        if len(self.last_counts) > MAX_INSTANCES:
            del self.last_counts[next(iter(self.last_counts))]
        return max(0.0, total - before) if before is not None else 0.0

    def begin_anew(self, unix_s: float) -> None:
        self.since_s = unix_s
        self.total = 0.0
        self.weight = 0.0


class Downsampler:
    """One value every SAMPLE_INTERVAL_S for each metric; beyond `max_streams`, the metric that has
    not been reported for longest is forgotten.
    """

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self._intervals: OrderedDict[SeriesKey, _Interval] = OrderedDict()

    def add(self, series: Series, point: Point) -> Iterator[tuple[SeriesKey, float]]:
        """Take a point; yields (metric, value) when an interval is over.

        An interval without an observation has no mean.
        """
        interval = self._interval(series.key, point.unix_s)
        interval.add(series, point)
        length_s = point.unix_s - interval.since_s
        if length_s >= SAMPLE_INTERVAL_S:
            yield from _samples(series, interval, length_s)
            interval.begin_anew(point.unix_s)

    def _interval(self, key: SeriesKey, unix_s: float) -> _Interval:
        interval = self._intervals.get(key)
        if interval is None:
            interval = self._intervals[key] = _Interval(unix_s)
            if len(self._intervals) > self._max_streams:
                self._intervals.popitem(last=False)
        else:
            self._intervals.move_to_end(key)
        return interval


def _samples(
    series: Series, interval: _Interval, length_s: float
) -> Iterator[tuple[SeriesKey, float]]:
    if series.kind == "sum":
        yield series.key, interval.total / length_s
        return
    if interval.weight:
        yield series.key, interval.total / interval.weight
    if series.kind == "histogram":
        key = replace(series.key, metric=series.key.metric + RATE_SUFFIX)
        yield key, interval.weight / length_s
