"""How much longer work takes as it waits for a processor: what a host's pressure explains.

Plain; who reads it is `host.py`.

The kernel counts the time in which some task was ready and had to wait (PSI, `/proc/pressure/cpu`).
In a time whose share `p` was such, work that takes one second of a processor takes up to `1 / (1 -
p)`.
"""

from __future__ import annotations

from collections import deque

KEPT = 120
"""Readings kept: four minutes at one every two seconds, which is longer than a trace stays open."""

NEAR_S = 2.0
"""The kernel adds up every two seconds, so that a moment's share may stand in the readings beside
it.
"""

MOST = 0.95
"""A share above it is read as this: nobody is explained away by more than a factor of twenty."""


class CpuPressure:
    """The recent past of one host; of other hosts nothing is known."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._readings: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def add(self, unix_s: float, cpu_wait_s: float) -> float:
        """Take the kernel's running total; the share waited since the reading before, 0 to 1."""
        share = 0.0
        if self._readings and unix_s > self._readings[-1][0]:
            before_s, before = self._readings[-1]
            share = min(1.0, max(0.0, (cpu_wait_s - before) / (unix_s - before_s)))
        self._readings.append((unix_s, cpu_wait_s))
        return share

    def slowdown(self, host: str, from_s: float, to_s: float) -> float:
        """By what factor work on a host took longer at most, around a period; 1 where that is not
        known.
        """
        if not host or host != self._host:
            return 1.0
        worst, later = 0.0, None
        for reading in reversed(self._readings):
            if later is not None and later[0] > reading[0] and reading[0] <= to_s + NEAR_S:
                worst = max(worst, (later[1] - reading[1]) / (later[0] - reading[0]))
            if reading[0] < from_s - NEAR_S:
                break
            later = reading
        return 1.0 / (1.0 - min(MOST, worst))
