"""A histogram of latencies of bounded size: buckets that are 2 % wide."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

GROWTH = 1.02
"""Upper end of a bucket divided by its lower end: quantiles are exact to 2 %."""
SMALLEST_MS = 0.001


@dataclass
class Histogram:
    """Counts of latencies in milliseconds. Not frozen: `add` counts."""

    counts: Counter[int] = field(default_factory=Counter)
    total: int = 0
    max_ms: float = 0.0
    sum_ms: float = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        self.counts[_bucket(latency_ms)] += 1
        self.total += 1
        self.sum_ms += latency_ms
        self.max_ms = max(self.max_ms, latency_ms)

    def quantile_ms(self, share: float) -> float:
        """The latency that `share` (0 to 1) of the calls did not exceed; 0 where there is none."""
        rank = math.ceil(share * self.total)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(_upper_ms(bucket), self.max_ms)
        return 0.0

    @property
    def mean_ms(self) -> float:
        """The mean latency; 0 where none was counted."""
        return self.sum_ms / self.total if self.total else 0.0

    def rows(self, number: int) -> list[tuple[float, float, int]]:
        """The counts in at most so many rows of equal ratio: (from ms, to ms, count)."""
        if not self.counts:
            return []
        low, high = min(self.counts), max(self.counts) + 1
        width = math.ceil((high - low) / number)
        return [
            (
                _lower_ms(start),
                _lower_ms(start + width),
                sum(self.counts[bucket] for bucket in range(start, start + width)),
            )
            for start in range(low, high, width)
        ]


def _bucket(latency_ms: float) -> int:
    return math.floor(math.log(max(latency_ms, SMALLEST_MS) / SMALLEST_MS) / math.log(GROWTH))


def _lower_ms(bucket: int) -> float:
    return SMALLEST_MS * math.exp(bucket * math.log(GROWTH))


def _upper_ms(bucket: int) -> float:
    return _lower_ms(bucket + 1)
