"""The instance's own load: what is in flight, how long recent rows took, how busy the slots were.

Given the time, never reads it.

Requests are counted on the event loop; slots are counted by the compute threads themselves, under a
lock.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from threading import Lock

RECENT_ROWS = 64


class LoadMeter:
    """Counts work as it comes and goes. All times in seconds on one monotonic clock."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.in_flight = 0
        self.running = 0
        self._lock = Lock()
        self._service_s: deque[float] = deque(maxlen=RECENT_ROWS)
        self._busy_s = 0.0
        self._changed_at = 0.0
        self._reported_at = 0.0

    def accepted(self, items: int) -> None:
        """Items have come in."""
        self.in_flight += items

    def finished(self, items: int) -> None:
        """Items have left, answered or not."""
        self.in_flight -= items

    def began(self, now: float) -> None:
        """A slot has begun to compute."""
        with self._lock:
            self._settle(now)
            self.running += 1

    def ended(self, now: float, service_s: float) -> None:
        """A slot is free again after `service_s` of computing."""
        with self._lock:
            self._settle(now)
            self.running -= 1
            self._service_s.append(service_s)

    def _settle(self, now: float) -> None:
        self._busy_s += self.running * max(0.0, now - self._changed_at)
        self._changed_at = max(now, self._changed_at)

    def utilization(self, now: float) -> float:
        """Share of slot time that was busy since the last call, 0 to 1."""
        with self._lock:
            self._settle(now)
            span = (now - self._reported_at) * self.concurrency
            share = self._busy_s / span if span > 0 else 0.0
            self._busy_s, self._reported_at = 0.0, now
        return min(1.0, max(0.0, share))

    @property
    def queued(self) -> int:
        """Items accepted and not computing."""
        return max(0, self.in_flight - self.running)

    @property
    def service_ms(self) -> float:
        """Median service time of recent rows in milliseconds, 0 before the first."""
        recent = list(self._service_s)
        return median(recent) * 1e3 if recent else 0.0
