"""What a pool measures: demand between readings, lead times of starts, capacity of an instance.

No clock and no I/O: the time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.features import Sample
from penstock.service.purity import pure

BURST_WINDOW_S = 6.0
"""Knative's panic window."""
LEAD_TIME_QUANTILE = 0.9
MAX_LEAD_TIMES = 200
MIN_LEAD_TIMES = 5
"""Until so many starts were measured, the initial value stands in for those that are missing."""
CAPACITY_RATE = 0.1
"""Weight of one measurement in the moving average of the capacity."""
CAPACITY_BOUNDS = (0.25, 4.0)
"""Measured over nominal capacity, at least and at most."""


@dataclass(frozen=True)
class Calibration:
    """What is kept over restarts.

    Args:
        lead_times_s: the last lead times, oldest first.
        capacity_correction: measured over nominal capacity.
    """

    lead_times_s: tuple[float, ...]
    capacity_correction: float


NO_CALIBRATION = Calibration((), 1.0)


@pure
class LeadTimes:
    """Times from the decision to start an instance until it serves."""

    def __init__(self, initial_s: float) -> None:
        self._initial_s = initial_s
        self.recent_s: deque[float] = deque(maxlen=MAX_LEAD_TIMES)

    def record(self, seconds: float) -> None:
        """Add the lead time of one start."""
        self.recent_s.append(max(0.0, seconds))

    @property
    def horizon_s(self) -> float:
        """The 90th percentile: how far ahead demand must be forecast."""
        missing = max(0, MIN_LEAD_TIMES - len(self.recent_s))
        known = [*self.recent_s, *[self._initial_s] * missing]
        return float(np.quantile(known, LEAD_TIME_QUANTILE, method="higher"))


@dataclass(frozen=True)
class ServedInterval:
    """One interval of a fleet: work that arrived, backlog before and after, ready instances."""

    arrived: float
    backlog_before: float
    backlog_after: float
    ready: int
    seconds: float


@pure
class CapacityEstimate:
    """Work of one instance in a second: a nominal value, corrected by what a fleet was seen to do.

    `correction`: measured over nominal capacity, a moving average.
    """

    def __init__(self) -> None:
        self.correction = NO_CALIBRATION.capacity_correction

    def observe(self, interval: ServedInterval, nominal: float) -> None:
        """Learn from one interval. Only a fleet with a backlog throughout shows its capacity."""
        saturated = min(interval.backlog_before, interval.backlog_after) > 0
        if not saturated or interval.ready < 1 or interval.seconds <= 0 or nominal <= 0:
            return
        served = max(0.0, interval.arrived + interval.backlog_before - interval.backlog_after)
        measured = served / interval.seconds / interval.ready / nominal
        self.set_correction(
            self.correction + CAPACITY_RATE * (_clamped(measured) - self.correction)
        )

    def set_correction(self, correction: float) -> None:
        """Set the correction, within its bounds."""
        self.correction = _clamped(correction)

    def corrected(self, nominal: float) -> float:
        """Return the capacity that a nominal one turns out to be."""
        return nominal * self.correction


def _clamped(correction: float) -> float:
    return min(max(correction, CAPACITY_BOUNDS[0]), CAPACITY_BOUNDS[1])


@pure
class DemandMeter:
    """Makes demand samples of whole intervals from readings at uneven moments.

    `backlog`: work that waited at the last reading.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._readings: deque[tuple[float, float]] = deque()
        self.reset()

    def reset(self) -> None:
        """Begin anew: readings of long ago say nothing about the time since."""
        self._readings.clear()
        self.backlog = 0.0
        self._arrived = 0.0
        self._start_s: float | None = None

    @property
    def burst(self) -> float:
        """Work a second over at least the last 6 s; 0 while fewer are known."""
        if len(self._readings) < 2:
            return 0.0
        seconds = self._readings[-1][0] - self._readings[0][0]
        if seconds < BURST_WINDOW_S:
            return 0.0
        return sum(work for _, work in list(self._readings)[1:]) / seconds

    def read(self, work: float, backlog: float, now_s: float) -> list[Sample]:
        """Take one reading: work that arrived since the last reading, and work that waits now.

        Returns:
            Samples of the intervals that have ended since the last call. Where nothing was read
            for several intervals, the work is spread over them.
        """
        self._keep_reading(work, now_s)
        self.backlog = backlog
        if self._start_s is None:
            self._start_s = now_s
            return []
        self._arrived += work
        interval_s = self._interval_s
        end_s = now_s // interval_s * interval_s
        elapsed_s = now_s - self._start_s
        if end_s <= self._start_s or elapsed_s < interval_s / 2:
            return []
        per_interval = self._arrived * interval_s / elapsed_s
        count = max(1, round(elapsed_s / interval_s))
        self._arrived = 0.0
        self._start_s = now_s
        starts = [end_s - back * interval_s for back in range(count, 0, -1)]
        return [Sample(start_s, per_interval, backlog) for start_s in starts]

    def _keep_reading(self, work: float, now_s: float) -> None:
        self._readings.append((now_s, work))
        while len(self._readings) > 2 and now_s - self._readings[1][0] >= BURST_WINDOW_S:
            self._readings.popleft()
