"""How new a value of a metric is: two decaying histograms and a budget of alerts.

Each stream keeps a histogram of pairs (value, difference to the value before) and one of pairs
(mean of the last 32 values, its difference to the mean 32 samples before). A new pair's score is
minus the logarithm of how often such a pair came before, in nats, summed over both histograms: rare
values and rare jumps score high in the first, slow shifts in the second. A value outside the range
seen so far scores more.

There are no settings for a stream: no season, no clock, no look-ahead. Its state is two tables of
32 × 9 cells, 64 past values and some twenty numbers: 7 kB.
"""

from __future__ import annotations

import math
import sys
from array import array

VALUE_BINS = 32
DIFFERENCE_BINS = 9
MEAN_SAMPLES = 32
"""Samples that the mean is over."""

WARM_UP_SAMPLES = 100
"""Samples before the first score."""

MIN_SAMPLES_BETWEEN_ALERTS = 100

ALERT_LEVEL_NATS = 11.5
"""Score at which a stream alerts that has not alerted before: the middle of 11.0 to 11.8, between
which the score on public data hardly changes.
"""

LEVEL_RAISE_NATS = 1.5
"""By how much the level rises when a stream's past alerts double."""

ALERT_HALF_LIFE_SAMPLES = 3000
DECAY = 0.9999
"""Weight of a count after one more sample."""

OUTSIDE_GAIN_NATS = 20.0
MAX_OUTSIDE_NATS = 10.0
"""A value outside the range seen scores more by the gain for each width of the range, at most by
the maximum.
"""

NEIGHBOUR_WEIGHT = 0.25
"""What a count in a neighbouring cell weighs."""

PRIOR_COUNT = 0.1
"""What every cell counts before anything fell into it."""

_ROW_LENGTH = DIFFERENCE_BINS + 2
_CELLS = (VALUE_BINS + 2) * _ROW_LENGTH
_MAX_UNIT = 1e9
"""When a new count has grown to this, all counts are divided by it."""


def _zeros(count: int) -> array[float]:
    return array("d", bytes(8 * count))


class DecayingHistogram:
    """Counts of pairs (value, difference), older ones weighing less.

    Rows are bins of the value, evenly over the range seen so far. Columns are bins of the
    difference, in units of the mean absolute difference. The table has a border of empty cells, so
    that every cell has eight neighbours.

    Instead of lowering all old counts with each sample, the unit that a new count adds is raised.
    """

    __slots__ = ("_cells", "_mass", "_mean_difference", "_samples", "_unit", "high", "low")

    def __init__(self) -> None:
        self._cells = _zeros(_CELLS)
        self._mass = 0.0
        self._unit = 1.0
        self._samples = 0
        self._mean_difference = 0.0
        self.low = math.inf
        self.high = -math.inf

    def score(self, value: float, difference: float) -> float:
        """Nats of novelty of a pair, before it is learned."""
        at = self._cell(value, difference)
        cells = self._cells
        above = at - _ROW_LENGTH
        below = at + _ROW_LENGTH
        near = cells[at - 1] + cells[at + 1]
        near += cells[above - 1] + cells[above] + cells[above + 1]
        near += cells[below - 1] + cells[below] + cells[below + 1]
        unit = self._unit
        count = (cells[at] + NEIGHBOUR_WEIGHT * near) / unit + PRIOR_COUNT
        return math.log((self._mass / unit + 1.0) / count) + self._outside(value)

    def learn(self, value: float, difference: float) -> None:
        """Count a pair."""
        if value < self.low or value > self.high:
            self._widen(min(self.low, value), max(self.high, value))
        self._cells[self._cell(value, difference)] += self._unit
        self._mass += self._unit
        self._unit /= DECAY
        if self._unit > _MAX_UNIT:
            self._rescale()
        self._samples += 1
        weight = max(0.002, 1.0 / self._samples)
        self._mean_difference += (abs(difference) - self._mean_difference) * weight

    def _cell(self, value: float, difference: float) -> int:
        """The index of the cell that a pair falls into."""
        width = self.high - self.low
        row = int((value - self.low) / width * VALUE_BINS) if width > 0.0 else 0
        if self._mean_difference > 0.0:
            scaled = difference / (3.0 * self._mean_difference)
            column = int((scaled + 1.0) * 0.5 * DIFFERENCE_BINS // 1)
        elif difference == 0.0:
            column = DIFFERENCE_BINS // 2
        else:
            column = DIFFERENCE_BINS - 1 if difference > 0.0 else 0
        row = 0 if row < 0 else min(row, VALUE_BINS - 1)
        column = 0 if column < 0 else min(column, DIFFERENCE_BINS - 1)
        return (row + 1) * _ROW_LENGTH + column + 1

    def _outside(self, value: float) -> float:
        """Nats for a value outside the range seen so far."""
        outside = max(self.low - value, value - self.high)
        if outside <= 0.0 or self._samples == 0:
            return 0.0
        width = self.high - self.low
        if width <= 0.0:
            return MAX_OUTSIDE_NATS
        return min(OUTSIDE_GAIN_NATS * outside / width, MAX_OUTSIDE_NATS)

    def _rescale(self) -> None:
        self._cells = array("d", (cell / self._unit for cell in self._cells))
        self._mass /= self._unit
        self._unit = 1.0

    def _widen(self, low: float, high: float) -> None:
        """Widen the range; the counts of each row move to the row that its centre now falls
        into.
        """
        if self._samples and high > low:
            old_width = self.high - self.low
            moved = _zeros(_CELLS)
            for row in range(VALUE_BINS):
                centre = self.low + (row + 0.5) / VALUE_BINS * old_width
                new_row = min(int((centre - low) / (high - low) * VALUE_BINS), VALUE_BINS - 1)
                source = (row + 1) * _ROW_LENGTH
                target = (new_row + 1) * _ROW_LENGTH
                for column in range(1, DIFFERENCE_BINS + 1):
                    moved[target + column] += self._cells[source + column]
            self._cells = moved
        self.low = low
        self.high = high

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sys.getsizeof(self._cells)


class NoveltyStream:
    """One stream of values: scores each against the stream's own past, and limits its alerts."""

    __slots__ = (
        "_means",
        "_means_histogram",
        "_previous",
        "_samples_since_alert",
        "_sum",
        "_values",
        "_values_histogram",
        "alerts",
        "samples",
    )

    def __init__(self) -> None:
        self._values_histogram = DecayingHistogram()
        self._means_histogram = DecayingHistogram()
        self._values = _zeros(MEAN_SAMPLES)
        self._means = _zeros(MEAN_SAMPLES)
        self._sum = 0.0
        self._previous = 0.0
        self._samples_since_alert = MIN_SAMPLES_BETWEEN_ALERTS
        self.alerts = 0.0
        """Alerts so far, older ones weighing less."""
        self.samples = 0

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of the values so far."""
        return self._values_histogram.low, self._values_histogram.high

    @property
    def mean(self) -> float:
        """The mean of the last 32 values; 0 before the first."""
        return self._means[(self.samples - 1) % MEAN_SAMPLES]

    def score(self, value: float) -> float:
        """Take a finite value; returns its novelty in nats, 0 during the warm-up."""
        difference = value - self._previous if self.samples else 0.0
        self._previous = value
        mean, mean_difference = self._update_mean(value)
        score = 0.0
        if self.samples >= WARM_UP_SAMPLES:
            score = self._values_histogram.score(value, difference)
            score += self._means_histogram.score(mean, mean_difference)
        self._values_histogram.learn(value, difference)
        self._means_histogram.learn(mean, mean_difference)
        self.samples += 1
        return score

    def _update_mean(self, value: float) -> tuple[float, float]:
        """The mean of the last 32 values, and its difference to the one 32 samples before."""
        at = self.samples % MEAN_SAMPLES
        values = self._values
        if at == 0:
            self._sum = sum(values)  # computed anew once a round, so that rounding does not add up
        self._sum += value - values[at]
        values[at] = value
        mean = self._sum / min(self.samples + 1, MEAN_SAMPLES)
        past = mean
        if self.samples >= MEAN_SAMPLES:
            past = self._means[at]
        elif self.samples:
            past = self._means[0]
        self._means[at] = mean
        return mean, mean - past

    def should_alert(self, score: float, level: float = ALERT_LEVEL_NATS) -> bool:
        """Whether a sample's score is an alert. Call it once for every sample.

        Each alert raises the stream's own level for a time, and none follows another within
        MIN_SAMPLES_BETWEEN_ALERTS.
        """
        self.alerts *= 0.5 ** (1.0 / ALERT_HALF_LIFE_SAMPLES)
        self._samples_since_alert += 1
        raised = level + LEVEL_RAISE_NATS * math.log2(1.0 + self.alerts)
        if self._samples_since_alert <= MIN_SAMPLES_BETWEEN_ALERTS or score < raised:
            return False
        self.alerts += 1.0
        self._samples_since_alert = 0
        return True

    def __sizeof__(self) -> int:
        parts = (self._values_histogram, self._means_histogram, self._values, self._means)
        return object.__sizeof__(self) + sum(sys.getsizeof(part) for part in parts)
