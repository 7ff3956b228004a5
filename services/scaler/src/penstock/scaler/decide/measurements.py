"""What a pool learns from its own decisions: how long a start takes, and what an instance really
does in a second. Time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

CAPACITY_RATE = 0.1
CAPACITY_BOUNDS = (0.25, 4.0)


@dataclass(frozen=True)
class Calibration:
    """What is kept over restarts: the last times from decision to ready, and the correction of the
    cost model's capacity.
    """

    lead_times_s: tuple[float, ...]
    correction: float


class LeadTimes:
    """Times from decision to ready.

    The 90th percentile of the last 200 is the horizon; until five are known, the seed counts too.
    """

    def __init__(self, seed_s: float) -> None:
        self._seed_s = seed_s
        self.seconds: deque[float] = deque(maxlen=200)

    def add(self, seconds: float) -> None:
        """Take one start that has become ready."""
        self.seconds.append(max(0.0, seconds))

    @property
    def horizon_s(self) -> float:
        """The 90th percentile in seconds."""
        known = list(self.seconds) + [self._seed_s] * max(0, 5 - len(self.seconds))
        return float(np.quantile(known, 0.9, method="higher"))


class CapacityEstimate:
    """Work that one instance does in a second, given by a cost model and corrected by what a
    saturated fleet was seen to do.
    """

    def __init__(self) -> None:
        self.correction = 1.0

    def saw(
        self, arrived: float, waiting: tuple[float, float], ready: int, seconds: float, given: float
    ) -> None:
        """One interval: work that arrived, that waited before and after.

        Only a fleet that had work waiting throughout tells its speed.
        """
        before, after = waiting
        if ready < 1 or seconds <= 0 or given <= 0 or min(before, after) <= 0:
            return
        served = max(0.0, arrived + before - after) / seconds / ready
        seen = min(max(served / given, CAPACITY_BOUNDS[0]), CAPACITY_BOUNDS[1])
        self.correction += CAPACITY_RATE * (seen - self.correction)

    def of(self, given: float) -> float:
        """The corrected capacity."""
        return given * self.correction
