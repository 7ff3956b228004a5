"""How many batches and streams may run at an instance at once: a fixed number, or one that is
learned from the instance's delays and overload answers.

The learned limit is the gradient rule of Netflix's concurrency-limits: it follows the ratio of the
long-term delay to the present one, with room for a small queue. An overload answer cuts it at once.

Plain values; nothing waits here.
"""

from __future__ import annotations

import math
from typing import Protocol

INITIAL_LIMIT = 4
MAX_LIMIT = 256.0
SMOOTHING = 0.2
"""Share of the way to its new value that the limit moves with each sample."""
LONG_TERM_WEIGHT = 1 / 300
"""Weight of a new delay in the long-term one, an average over about 600 samples."""
FALLING_DELAY_FACTOR = 5
"""A delay below the long-term one weighs this many times more: the best delay counts most."""
TOLERANCE = 1.5
"""Present delay over the long-term one that is not yet taken for queueing."""
OVERLOAD_FACTOR = 0.7


class ConcurrencyLimit(Protocol):
    """How many batches and streams may run at once."""

    @property
    def limit(self) -> int:
        """The number that may run now, at least 1."""
        ...

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Record milliseconds a token of a batch, or to the first token of a stream, that ended
        while `running` were running.
        """
        ...

    def record_overload(self) -> None:
        """Record that the instance answered that it has too much to do."""
        ...


class FixedLimit:
    """The number that the instance declared; 0 means 1."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Change nothing."""

    def record_overload(self) -> None:
        """Change nothing."""


class GradientLimit:
    """A limit that is learned.

    Delays are per token, or to the first token of a stream, so that long answers do not look like
    overload.
    """

    def __init__(self, initial: int = INITIAL_LIMIT) -> None:
        self._limit = float(max(1, initial))
        self._long_term_ms = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Move the limit, but only while at least half of it is used, so that a quiet time does
        not raise it.
        """
        if delay_ms <= 0:
            return
        self._average(delay_ms)
        if running < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long_term_ms / delay_ms))
        target = self._limit * gradient + math.sqrt(self._limit)
        smoothed = self._limit + SMOOTHING * (target - self._limit)
        self._limit = max(1.0, min(MAX_LIMIT, smoothed))

    def _average(self, delay_ms: float) -> None:
        if not self._long_term_ms:
            self._long_term_ms = delay_ms
        self._long_term_ms += LONG_TERM_WEIGHT * (delay_ms - self._long_term_ms)
        if delay_ms < self._long_term_ms:
            weight = FALLING_DELAY_FACTOR * LONG_TERM_WEIGHT
            self._long_term_ms += weight * (delay_ms - self._long_term_ms)

    def record_overload(self) -> None:
        """Cut the limit at once."""
        self._limit = max(1.0, self._limit * OVERLOAD_FACTOR)
