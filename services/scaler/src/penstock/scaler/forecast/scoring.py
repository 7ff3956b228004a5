"""Quantiles from what happened: rings of past residuals, kept in order, so that a quantile is a
look-up.
"""

from __future__ import annotations

import numpy as np
from penstock.scaler.forecast.features import Array


class Residuals:
    """The last `size` residuals, in order of time and in order of size."""

    def __init__(self, size: int = 2000) -> None:
        self._ring = np.zeros(size)
        self._sorted = np.zeros(size)
        self.count = 0
        self._next = 0

    def add(self, value: float) -> None:
        """Take one, forget the oldest where the ring is full."""
        kept = self._sorted[: self.count]
        if self.count == len(self._ring):
            gone = int(np.searchsorted(kept, self._ring[self._next]))
            kept[gone:-1] = kept[gone + 1 :].copy()
            self.count -= 1
        place = int(np.searchsorted(self._sorted[: self.count], value))
        self._sorted[place + 1 : self.count + 1] = self._sorted[place : self.count].copy()
        self._sorted[place] = value
        self.count += 1
        self._ring[self._next] = value
        self._next = (self._next + 1) % len(self._ring)

    def quantiles(self, levels: Array) -> Array:
        """Conformal quantiles: the ceil((n + 1) q)-th smallest, interpolated; the largest where q
        asks for more than n can say.
        """
        place = np.clip(levels * (self.count + 1) - 1.0, 0.0, self.count - 1.0)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, self.count - 1)
        part = place - low
        answer: Array = self._sorted[low] * (1 - part) + self._sorted[high] * part
        return answer

    def dump(self) -> Array:
        """The residuals, oldest first."""
        if self.count < len(self._ring):
            return self._ring[: self.count].copy()
        return np.roll(self._ring, -self._next)
