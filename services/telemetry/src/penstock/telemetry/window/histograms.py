"""Histograms as senders report them: explicit and exponential buckets, totals and increments.

An exponential histogram has buckets whose bounds are powers of `2 ** 2 ** -scale`. A sender lowers
the scale when its values spread, so two reports are compared at the lower of their scales, where
each bucket is the sum of neighbours. For quantiles and for Prometheus it becomes explicit: bounds,
and one count more than bounds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry.proto.metrics.v1 import metrics_pb2

MAX_BUCKETS = 160
"""Buckets of each sign that are held of an exponential histogram; beyond it the scale is lowered
(160 is also the default of OpenTelemetry's SDKs).
"""

MIN_SCALE = -10

Range = tuple[float, float, int]
"""Lower bound, upper bound (inclusive), and how many observations lie between."""


@dataclass(frozen=True, slots=True)
class Explicit:
    """Counts by bucket; the last has no upper bound. Without bounds and counts nothing is known but
    how many there were.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def ranges(self) -> tuple[Range, ...]:
        """The buckets that are not empty."""
        lows = (0.0 if not self.bounds else min(0.0, self.bounds[0]), *self.bounds)
        highs = (*self.bounds, math.inf)
        return tuple(
            (low, high, count)
            for low, high, count in zip(lows, highs, self.counts, strict=False)
            if count > 0
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What a histogram has counted, in a period or since its start."""

    buckets: Explicit | Exponential
    count: int
    total: float

    def explicit(self) -> Explicit:
        """The buckets with explicit bounds."""
        return self.buckets if isinstance(self.buckets, Explicit) else self.buckets.explicit()


@dataclass(frozen=True, slots=True)
class Exponential:
    """Counts by index of positive and of negative values, and those around zero."""

    scale: int
    zero_threshold: float
    zero_count: int
    positive: Mapping[int, int]
    negative: Mapping[int, int]

    def at(self, scale: int) -> Exponential:
        """The same at a scale that is not higher."""
        shift = self.scale - scale
        return Exponential(
            scale,
            self.zero_threshold,
            self.zero_count,
            _merged(self.positive, shift),
            _merged(self.negative, shift),
        )

    def bounded(self) -> Exponential:
        """The same with at most MAX_BUCKETS of each sign."""
        shift = 0
        while self.scale - shift > MIN_SCALE and any(
            _width(counts, shift) > MAX_BUCKETS for counts in (self.positive, self.negative)
        ):
            shift += 1
        return self.at(self.scale - shift) if shift else self

    def explicit(self) -> Explicit:
        """The buckets with explicit bounds, rising and finite."""
        bounds: list[float] = []
        counts: list[int] = []
        for bound, count in self._rising():
            if bound == math.inf:
                break  # those are counted beyond every bound
            if bounds and bound <= bounds[-1]:
                counts[-1] += count
            else:
                bounds.append(max(bound, -sys.float_info.max))
                counts.append(count)
        return Explicit(tuple(bounds), (*counts, self._beyond()))

    def _rising(self) -> Iterable[tuple[float, int]]:
        """(upper bound, count) of every bucket but the last."""
        if self.negative:
            for index in range(max(self.negative) + 1, min(self.negative) - 1, -1):
                yield -self._bound(index), self.negative.get(index, 0)
        yield self.zero_threshold, self.zero_count
        if self.positive:
            first = min(self.positive)
            yield self._bound(first), 0
            for index in range(first, max(self.positive) + 1):
                yield self._bound(index + 1), self.positive.get(index, 0)

    def _beyond(self) -> int:
        """The count of values above every finite bound."""
        return sum(
            count
            for index, count in self.positive.items()
            if not math.isfinite(self._bound(index + 1))
        )

    def _bound(self, index: int) -> float:
        """The lower bound of a positive bucket."""
        try:
            return math.exp2(math.ldexp(index, -self.scale))
        except OverflowError:
            return math.inf if index > 0 else 0.0


def _width(counts: Mapping[int, int], shift: int) -> int:
    return ((max(counts) >> shift) - (min(counts) >> shift) + 1) if counts else 0


def _merged(counts: Mapping[int, int], shift: int) -> dict[int, int]:
    merged: dict[int, int] = {}
    for index, count in counts.items():
        merged[index >> shift] = merged.get(index >> shift, 0) + count
    return merged


def read_explicit(point: metrics_pb2.HistogramDataPoint) -> Totals:
    """A data point with explicit buckets; a last bound of infinity is dropped."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if bounds and bounds[-1] == math.inf:
        bounds.pop()
        counts[-2:] = [counts[-2] + counts[-1]]
    if bounds and bounds[0] == -math.inf:
        bounds.pop(0)
        counts[:2] = [counts[0] + counts[1]]
    return Totals(Explicit(tuple(bounds), tuple(counts)), point.count, point.sum)


def read_exponential(point: metrics_pb2.ExponentialHistogramDataPoint) -> Totals:
    """A data point with exponential buckets."""
    buckets = Exponential(
        point.scale,
        max(0.0, point.zero_threshold),
        point.zero_count,
        _by_index(point.positive),
        _by_index(point.negative),
    )
    return Totals(buckets.bounded(), point.count, point.sum)


def _by_index(buckets: metrics_pb2.ExponentialHistogramDataPoint.Buckets) -> dict[int, int]:
    return {
        buckets.offset + place: count for place, count in enumerate(buckets.bucket_counts) if count
    }


def increase(before: Totals, now: Totals) -> Totals | None:
    """What was counted between two reports of running totals; None where they cannot be compared,
    because the sender began anew.
    """
    if now.count < before.count:
        return None
    buckets = _combined(before.buckets, now.buckets, -1)
    if buckets is None:
        return None
    return Totals(buckets, now.count - before.count, now.total - before.total)


def sum_of(before: Totals, new: Totals) -> Totals:
    """Running totals after an increment; those of the increment alone where they cannot be added,
    because the sender has changed its buckets.
    """
    buckets = _combined(before.buckets, new.buckets, 1)
    if buckets is None:
        return new
    return Totals(buckets, before.count + new.count, before.total + new.total)


def _combined(
    before: Explicit | Exponential, now: Explicit | Exponential, sign: int
) -> Explicit | Exponential | None:
    """`now` plus `before` times `sign`; None where buckets differ or a count would be negative."""
    if isinstance(before, Explicit) and isinstance(now, Explicit):
        if before.bounds != now.bounds or len(before.counts) != len(now.counts):
            return None
        counts = tuple(a + sign * b for a, b in zip(now.counts, before.counts, strict=True))
        return Explicit(now.bounds, counts) if min(counts, default=0) >= 0 else None
    if isinstance(before, Exponential) and isinstance(now, Exponential):
        return _combined_exponential(before, now, sign)
    return None


def _combined_exponential(before: Exponential, now: Exponential, sign: int) -> Exponential | None:
    scale = min(before.scale, now.scale)
    old, new = before.at(scale), now.at(scale)
    positive = _added(new.positive, old.positive, sign)
    negative = _added(new.negative, old.negative, sign)
    zero = new.zero_count + sign * old.zero_count
    if zero < 0 or min((*positive.values(), *negative.values()), default=0) < 0:
        return None
    return Exponential(scale, new.zero_threshold, zero, positive, negative).bounded()


def _added(counts: Mapping[int, int], others: Mapping[int, int], sign: int) -> dict[int, int]:
    indexes = {*counts, *others}
    sums = {index: counts.get(index, 0) + sign * others.get(index, 0) for index in indexes}
    return {index: count for index, count in sums.items() if count}


def quantile_of(ranges: Iterable[Range], share: float) -> float:
    """A quantile, interpolated within its range; 0 when there are none.

    Ranges of different histograms may overlap: they are taken in the order of their upper bounds.

    Args:
        ranges: from one histogram or several.
        share: 0 to 1; 0.5 is the median.
    """
    rising = sorted(ranges, key=lambda part: part[1])
    rank = share * sum(count for _, _, count in rising)
    below = 0
    for low, high, count in rising:
        if below + count >= rank:
            return low if math.isinf(high) else low + (high - low) * (rank - below) / count
        below += count
    return rising[-1][0] if rising else 0.0
