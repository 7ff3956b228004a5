"""When a queue is overloaded. Plain values: `now` is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CoDel:
    """Controlled delay (Nichols and Jacobson, 2012), here as a detector of overload.

    The queue is overloaded once the waits of the served items have stayed at or above `target_s`
    for a whole `interval_s`, and until one falls below it. A burst alone is no overload.
    """

    target_s: float = 0.1
    interval_s: float = 0.5
    above_since_s: float | None = None
    overloaded: bool = False

    def observe(self, waited_s: float, now: float) -> None:
        """Record that an item is served now after waiting `waited_s`."""
        if waited_s < self.target_s:
            self.above_since_s, self.overloaded = None, False
        elif self.above_since_s is None:
            self.above_since_s = now
        elif now - self.above_since_s >= self.interval_s:
            self.overloaded = True
