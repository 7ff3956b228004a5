"""Bounded statistics: distributions of durations, and values by key in steps of time.

Steps are of Unix time, which is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from penstock.otel.counts import bucket_bounds_s, bucket_index

STEP_S = 10
BOUNDS_S = bucket_bounds_s()


class Distribution:
    """A histogram of durations in the buckets of `penstock.otel.counts`, and how many failed."""

    __slots__ = ("buckets", "count", "errors")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.buckets: dict[int, int] = {}

    def add(self, duration_ns: int, failed: bool = False) -> None:
        """Count one duration; a negative one counts as zero."""
        index = bucket_index(max(duration_ns, 0))
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.count += 1
        self.errors += failed

    def merge(self, other: Distribution) -> None:
        """Add another's counts."""
        self.count += other.count
        self.errors += other.errors
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    def quantile_ms(self, share: float) -> float:
        """The duration below which this share of all lies, in milliseconds; 0 without any."""
        return quantile(self.buckets, self.count, share, BOUNDS_S) * 1000.0


def quantile(
    buckets: Mapping[int, int], count: int, share: float, bounds: Sequence[float]
) -> float:
    """A quantile of a histogram, interpolated within its bucket; 0 when it is empty.

    Args:
        buckets: counts by bucket index; the last index is `len(bounds)`.
        count: sum of the counts.
        share: 0 to 1; 0.5 is the median.
        bounds: upper bounds of all buckets but the last; the result has their unit.
    """
    if not count or not bounds:
        return 0.0
    rank = share * count
    below = 0
    for index in sorted(buckets):
        in_bucket = buckets[index]
        if below + in_bucket >= rank:
            low = bounds[index - 1] if 0 < index <= len(bounds) else 0.0
            high = bounds[index] if index < len(bounds) else bounds[-1]
            return low + (high - low) * (rank - below) / in_bucket
        below += in_bucket
    return bounds[-1]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TimeSteps(Generic[K, V]):
    """Values by key for each step of ten seconds; the oldest steps are forgotten.

    Args:
        make: makes the value of a new key.
        max_steps: 360 are an hour.
        max_keys: keys within one step.
    """

    def __init__(self, make: Callable[[], V], max_steps: int = 360, max_keys: int = 2000) -> None:
        self._make = make
        self._max_steps = max_steps
        self._max_keys = max_keys
        self._steps: OrderedDict[int, dict[K, V]] = OrderedDict()

    def value(self, unix_s: float, key: K) -> V | None:
        """The value of a key in the step of a moment, made when it is new.

        None when the step has as many keys as it may have.
        """
        step = int(unix_s // STEP_S)
        values = self._steps.get(step)
        if values is None:
            values = self._steps[step] = {}
            while len(self._steps) > self._max_steps:
                self._steps.popitem(last=False)
        if key not in values:
            if len(values) >= self._max_keys:
                return None
            values[key] = self._make()
        return values[key]

    def between(self, from_s: float, to_s: float) -> Iterator[tuple[int, K, V]]:
        """(start of the step in Unix seconds, key, value) of the steps that touch a period, the
        oldest first.
        """
        for step in sorted(self._steps):
            if step * STEP_S + STEP_S > from_s and step * STEP_S < to_s:
                for key, value in self._steps[step].items():
                    yield step * STEP_S, key, value
