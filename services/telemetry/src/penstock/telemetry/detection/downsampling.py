"""What detectors are shown of the metrics: each stream as one value every 15 seconds, its instances
taken together. No clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from penstock.telemetry.window.series import Point, Series
from penstock.telemetry.window.series_key import SeriesKey

SAMPLE_INTERVAL_S = 15.0
MAX_STREAMS = 20_000
MAX_INSTANCES = 200
"""Instances of one stream whose counts are remembered; the one least recently heard of is forgotten
first.
"""

RATE = ":rate"
"""Behind a histogram's name: how many observations a second it took. The name alone is their mean.
"""


@dataclass(slots=True)
class _Interval:
    """What came since the last sample: a sum and its weight; and each instance's last count, to
    tell increments by.
    """

    since_s: float
    total: float = 0.0
    weight: float = 0.0
    last: dict[str, float] = field(default_factory=dict)


class Downsampler:
    """Means of gauges and histograms, rates of counts.

    The stream least recently heard of is forgotten when there are too many.
    """

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._intervals: OrderedDict[SeriesKey, _Interval] = OrderedDict()

    def take(self, series: Series, point: Point) -> Iterator[tuple[SeriesKey, float]]:
        """Take a point; yields samples when an interval is over.

        An interval without an observation has no mean.
        """
        interval = self._at(series.key, point.unix_s)
        if series.kind == "histogram":
            interval.total += point.value * point.seen
            interval.weight += point.seen
        elif series.kind == "sum":
            before = interval.last.pop(series.instance, None)
            interval.total += max(0.0, point.value - before) if before is not None else 0.0
            interval.last[series.instance] = point.value
            if len(interval.last) > MAX_INSTANCES:
                del interval.last[next(iter(interval.last))]
        else:
            interval.total += point.value
            interval.weight += 1.0
        if (length_s := point.unix_s - interval.since_s) >= SAMPLE_INTERVAL_S:
            yield from _samples(series, interval, length_s)
            interval.since_s, interval.total, interval.weight = point.unix_s, 0.0, 0.0

    def _at(self, key: SeriesKey, unix_s: float) -> _Interval:
        interval = self._intervals.get(key)
        if interval is None:
            interval = self._intervals[key] = _Interval(unix_s)
            if len(self._intervals) > self._most:
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
        yield replace(series.key, metric=series.key.metric + RATE), interval.weight / length_s
