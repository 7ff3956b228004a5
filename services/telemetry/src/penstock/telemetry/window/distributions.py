"""Distributions by steps of time, bounded: what the service graph and the latency tables are made
of. No gRPC, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from penstock.otel.counts import BUCKETS, bucket_bounds_s, bucket_index

STEP_S = 10
BOUNDS = bucket_bounds_s()


class Distribution:
    """Durations in the buckets of penstock.core, a quantile known within a fifth."""

    __slots__ = ("buckets", "count", "errors")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.buckets: dict[int, int] = {}

    def add(self, duration_ns: int, failed: bool = False) -> None:
        index = bucket_index(max(duration_ns, 0))
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.count += 1
        self.errors += failed

    def merge(self, other: Distribution) -> None:
        self.count += other.count
        self.errors += other.errors
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    def quantile_ms(self, share: float) -> float:
        """The duration below which this share lies, in milliseconds; 0 when there is none."""
        return quantile(self.buckets, self.count, share, BOUNDS) * 1000.0


def quantile(buckets: dict[int, int], count: int, share: float, bounds: list[float]) -> float:
    """A quantile of bucketed values, interpolated inside its bucket, in the unit of the bounds."""
    if not count or not bounds:
        return 0.0
    rank, seen = share * count, 0
    for index in sorted(buckets):
        held = buckets[index]
        if seen + held >= rank:
            low = bounds[index - 1] if 0 < index <= len(bounds) else 0.0
            high = bounds[index] if index < len(bounds) else bounds[-1]
            return low + (high - low) * (rank - seen) / held
        seen += held
    return bounds[-1]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TimeSteps(Generic[K, V]):
    """Values by key for each step of ten seconds, the oldest steps forgotten.

    A step is Unix seconds divided by ten.
    """

    def __init__(self, make: Callable[[], V], max_steps: int = 360, max_keys: int = 2000) -> None:
        self._make = make
        self._most_steps = max_steps
        self._most_keys = max_keys
        self._steps: OrderedDict[int, dict[K, V]] = OrderedDict()

    def at(self, unix_s: float, key: K) -> V | None:
        """The value of a key now; None when this step has as many keys as it may have."""
        step = int(unix_s // STEP_S)
        row = self._steps.get(step)
        if row is None:
            row = self._steps[step] = {}
            while len(self._steps) > self._most_steps:
                self._steps.popitem(last=False)
        if key not in row:
            if len(row) >= self._most_keys:
                return None
            row[key] = self._make()
        return row[key]

    def between(self, from_s: float, to_s: float) -> Iterator[tuple[int, K, V]]:
        """(step's start in Unix seconds, key, value) of the steps that touch the period, oldest
        first.
        """
        for step in sorted(self._steps):
            if step * STEP_S + STEP_S > from_s and step * STEP_S < to_s:
                for key, held in self._steps[step].items():
                    yield step * STEP_S, key, held


assert len(BOUNDS) == BUCKETS - 1
