"""From readings of totals at uneven moments to samples of whole intervals, and the rate of the last
few seconds. No clock here.
"""

from __future__ import annotations

from collections import deque

from penstock.scaler.samples import Sample

BURST_S = 6.0
"""Knative's panic window."""


class Meter:
    """Work of one pool as it arrives between readings. `waiting` is what waited at the last one."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._readings: deque[tuple[float, float]] = deque()
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was read long ago says nothing of the time since."""
        self._readings.clear()
        self.waiting = self._arrived = 0.0
        self._began_s: float | None = None

    @property
    def burst(self) -> float:
        """Work a second over at least the last BURST_S; 0 before so much is known."""
        if (
            len(self._readings) < 2
            or (lasted_s := self._readings[-1][0] - self._readings[0][0]) < BURST_S
        ):
            return 0.0
        return sum(work for _, work in list(self._readings)[1:]) / lasted_s

    def read(self, work: float, waiting: float, now_s: float) -> list[Sample]:
        """Take one reading: work that arrived since the last, work that waits now.

        Returns the samples of intervals that have ended since the last one; several where nothing
        could be read for long.
        """
        self._readings.append((now_s, work))
        while len(self._readings) > 2 and now_s - self._readings[1][0] >= BURST_S:
            self._readings.popleft()
        self.waiting = waiting
        if self._began_s is None:
            self._began_s = now_s
            return []
        self._arrived += work
        this_s, lasted_s = now_s // self._interval_s * self._interval_s, now_s - self._began_s
        if this_s <= self._began_s or lasted_s < self._interval_s / 2:
            return []
        mean, ended = (
            self._arrived * self._interval_s / lasted_s,
            max(1, round(lasted_s / self._interval_s)),
        )
        self._arrived, self._began_s = 0.0, now_s
        starts = [this_s - back * self._interval_s for back in range(ended, 0, -1)]
        return [Sample(start_s, mean, waiting) for start_s in starts]
