"""How long the store may take before rules do without it. Plain: durations in, an allowance out.

A store that refuses is known at once; one that hangs (stopped, cut off, swapped out) is known only
by its silence. The allowance is short where the store has been quick, so that a hang is noticed
within milliseconds, and grows with what the store has lately needed.
"""

from __future__ import annotations

PER_CALL_S = 5e-4
"""Allowed for each question of a batch: three times what the script takes."""
MIN_BATCHES = 2
"""Batches before the store counts as known; until then the longest wait is allowed. A service meets
its store so often before it serves.
"""
FADE = 0.9
"""What is left of the slowest batch's time after one more batch."""
SLOWEST = 2.0
"""So many times the slowest recent batch is not yet a loss."""


class Patience:
    """Learns the pace of a store.

    Args:
        least_s: allowed at least, beside what each question is allowed.
        most_s: allowed at most, and at the beginning.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._slow_s, self._seen = 0.0, 0

    def learn(self, questions: int, took_s: float) -> None:
        """Note what a batch of so many questions took; a late one counts too, for the next may take
        as long.
        """
        self._seen += 1
        self._slow_s = max(min(took_s, self._most_s) - PER_CALL_S * questions, self._slow_s * FADE)

    def for_batch(self, questions: int) -> float:
        """How long a batch of so many questions may take before its callers are answered without
        it.
        """
        if self._seen < MIN_BATCHES:
            return self._most_s
        return min(
            self._most_s, max(self._least_s, SLOWEST * self._slow_s) + PER_CALL_S * questions
        )
