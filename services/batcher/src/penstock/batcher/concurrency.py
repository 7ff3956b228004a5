"""How many batches or streams may run at an instance at once: fixed, or learnt from its delays and
its overload answers. Plain values.

The gradient rule of Netflix's concurrency-limits: the limit follows the ratio of the long-run delay
to the present one, with room for a small queue; an overload answer cuts it by a factor at once.
"""

from __future__ import annotations

import math

FIRST_LIMIT = 4.0
MOST = 256.0
SMOOTHING = 0.2
LONG_RUN = 1 / 300
"""Weight of a new delay in the long-run one, an average over about 600 samples."""
TOLERANCE = 1.5
"""Present delay over the long-run one that is not yet taken for queueing."""
OVERLOAD_FACTOR = 0.7


class FixedLimit:
    """The number that the instance declared."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)

    def finished(self, delay_ms: float, running: int) -> None:
        """A batch or a first token took so long for each token."""

    def overloaded(self) -> None:
        """The instance answered that it has too much."""


class GradientLimit:
    """Learns the limit.

    Delays are for each token, or to the first token of a stream, so that long answers do not look
    like overload.
    """

    def __init__(self, first: float = FIRST_LIMIT) -> None:
        self._limit = max(1.0, first)
        self._long_ms = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def finished(self, delay_ms: float, running: int) -> None:
        """Move the limit; only while at least half of it is used, so that a quiet time does not
        raise it.
        """
        if delay_ms <= 0:
            return
        self._long_ms = (
            delay_ms if not self._long_ms else self._long_ms + LONG_RUN * (delay_ms - self._long_ms)
        )
        if delay_ms < self._long_ms:
            self._long_ms += 5 * LONG_RUN * (delay_ms - self._long_ms)
        if running < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long_ms / delay_ms))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._limit = max(1.0, min(MOST, self._limit + SMOOTHING * (wanted - self._limit)))

    def overloaded(self) -> None:
        """Cut the limit at once."""
        self._limit = max(1.0, self._limit * OVERLOAD_FACTOR)
