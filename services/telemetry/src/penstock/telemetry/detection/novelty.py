"""How unusual a value of one stream is: two histograms of values and differences, and a budget of
alerts. Plain, constant memory.

One setting for every stream: no season, no clock, no look ahead. A stream's state is two tables of
32 x 9 cells, 64 values of its past and some twenty scalars: 7 kB. Scores are in nats: minus the
logarithm of how often such a value came before.
"""

from __future__ import annotations

import math
from array import array

VALUE_BINS = 32
STEP_BINS = 9
LAG = 32
WARM_UP_SAMPLES = 100
"""Samples before the first score, and between two alerts."""

ALERT_LEVEL_NATS = 11.5
"""Nats at which a stream that never alerted does: the middle of 11.0 to 11.8, between which the
public streams' score hardly moves.
"""

RAISE = 1.5
HALF_LIFE = 3000
DECAY = 0.9999
OUTSIDE_GAIN = 20.0
OUTSIDE_MOST = 10.0
NEIGHBOUR = 0.25
PRIOR = 0.1

_WIDTH = STEP_BINS + 2
_CELLS = (VALUE_BINS + 2) * _WIDTH
_RESCALE = 1e9


def _zeros(count: int) -> array[float]:
    return array("d", bytes(8 * count))


class DecayingHistogram:
    """Counts of (value, difference) pairs, the value's bins over the range seen so far; the older
    the count the less it weighs.
    """

    __slots__ = ("_cells", "_mass", "_scale", "_seen", "_unit", "high", "low")

    def __init__(self) -> None:
        self._cells = _zeros(_CELLS)
        self._mass = 0.0
        self._unit = 1.0
        self._seen = 0
        self._scale = 0.0
        self.low = math.inf
        self.high = -math.inf

    def score(self, value: float, step: float) -> float:
        """Nats of surprise, before this pair is learnt."""
        at = self._cell(value, step)
        cells = self._cells
        above, below = at - _WIDTH, at + _WIDTH
        near = cells[at - 1] + cells[at + 1]
        near += cells[above - 1] + cells[above] + cells[above + 1]
        near += cells[below - 1] + cells[below] + cells[below + 1]
        unit = self._unit
        held = (cells[at] + NEIGHBOUR * near) / unit + PRIOR
        return math.log((self._mass / unit + 1.0) / held) + self._outside(value)

    def learn(self, value: float, step: float) -> None:
        """Count a pair."""
        if value < self.low or value > self.high:
            self._grow(min(self.low, value), max(self.high, value))
        self._cells[self._cell(value, step)] += self._unit
        self._mass += self._unit
        self._unit /= DECAY
        if self._unit > _RESCALE:
            self._cells = array("d", (cell / self._unit for cell in self._cells))
            self._mass /= self._unit
            self._unit = 1.0
        self._seen += 1
        self._scale += (abs(step) - self._scale) * max(0.002, 1.0 / self._seen)

    def _cell(self, value: float, step: float) -> int:
        width = self.high - self.low
        row = int((value - self.low) / width * VALUE_BINS) if width > 0.0 else 0
        if self._scale > 0.0:
            column = int((step / (3.0 * self._scale) + 1.0) * 0.5 * STEP_BINS // 1)
        else:
            column = STEP_BINS // 2 if step == 0.0 else (STEP_BINS - 1 if step > 0.0 else 0)
        row = 0 if row < 0 else min(row, VALUE_BINS - 1)
        column = 0 if column < 0 else min(column, STEP_BINS - 1)
        return (row + 1) * _WIDTH + column + 1

    def _outside(self, value: float) -> float:
        out = max(self.low - value, value - self.high)
        if out <= 0.0 or self._seen == 0:
            return 0.0
        width = self.high - self.low
        return min(OUTSIDE_GAIN * out / width, OUTSIDE_MOST) if width > 0.0 else OUTSIDE_MOST

    def _grow(self, low: float, high: float) -> None:
        """Widen the range; each row's counts move to the row that now holds their old centre."""
        if self._seen and high > low:
            old_low, old_width, moved = self.low, self.high - self.low, _zeros(_CELLS)
            for row in range(VALUE_BINS):
                centre = old_low + (row + 0.5) / VALUE_BINS * old_width
                to = min(int((centre - low) / (high - low) * VALUE_BINS), VALUE_BINS - 1)
                source, target = (row + 1) * _WIDTH, (to + 1) * _WIDTH
                for column in range(1, STEP_BINS + 1):
                    moved[target + column] += self._cells[source + column]
            self._cells = moved
        self.low, self.high = low, high


class NoveltyStream:
    """One stream: its values as they come and its means over 32 samples, each against its own past;
    and the budget of its alerts.
    """

    __slots__ = (
        "_fast",
        "_means",
        "_previous",
        "_since",
        "_slow",
        "_sum",
        "_values",
        "alerts",
        "seen",
    )

    def __init__(self) -> None:
        self._fast = DecayingHistogram()
        self._slow = DecayingHistogram()
        self._values = _zeros(LAG)
        self._means = _zeros(LAG)
        self._sum = 0.0
        self._previous = 0.0
        self._since = WARM_UP_SAMPLES
        self.alerts = 0.0
        self.seen = 0

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of values seen."""
        return self._fast.low, self._fast.high

    @property
    def mean(self) -> float:
        """The mean of the last 32 values; 0 before the first."""
        return self._means[(self.seen - 1) % LAG]

    def score(self, value: float) -> float:
        """Take a finite value; nats of surprise, 0 for the first hundred."""
        step = value - self._previous if self.seen else 0.0
        self._previous = value
        mean, turn = self._averaged(value)
        total = 0.0
        if self.seen >= WARM_UP_SAMPLES:
            total = self._fast.score(value, step) + self._slow.score(mean, turn)
        self._fast.learn(value, step)
        self._slow.learn(mean, turn)
        self.seen += 1
        return total

    def _averaged(self, value: float) -> tuple[float, float]:
        """The mean of the last 32 values, and how far it moved in 32 samples."""
        at, values = self.seen % LAG, self._values
        if at == 0:  # the sum is taken anew at each turn, so that rounding does not pile up
            self._sum = sum(values)
        self._sum += value - values[at]
        values[at] = value
        mean = self._sum / min(self.seen + 1, LAG)
        past = self._means[at] if self.seen >= LAG else (self._means[0] if self.seen else mean)
        self._means[at] = mean
        return mean, mean - past

    def alert(self, score: float, theta: float = ALERT_LEVEL_NATS) -> bool:
        """Whether this sample's score is an alert; each alert raises the stream's own bar for a
        time.
        """
        self.alerts *= 0.5 ** (1.0 / HALF_LIFE)
        self._since += 1
        if self._since <= WARM_UP_SAMPLES or score < theta + RAISE * math.log2(1.0 + self.alerts):
            return False
        self.alerts += 1.0
        self._since = 0
        return True
