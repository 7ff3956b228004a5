"""The instance's load: what is in flight, how long recent tasks took, how busy the slots were.

Requests are counted on the event loop; slots are counted by the compute threads, under a lock. The
time is an argument, in seconds on one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from threading import Lock

RECENT_TASKS = 64


class LoadMeter:
    """Counts work as it comes and goes."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.in_flight = 0
        self.running = 0
        self._lock = Lock()
        self._service_s: deque[float] = deque(maxlen=RECENT_TASKS)
        self._busy_s = 0.0
        self._changed_at_s = 0.0
        self._reported_at_s = 0.0

    def add(self, requests: int) -> None:
        """Count requests that came in."""
        self.in_flight += requests

    def remove(self, requests: int) -> None:
        """Count requests that left, answered or not."""
        self.in_flight -= requests

    def start_slot(self, now: float) -> None:
        """Count a slot that begins to compute."""
        with self._lock:
            self._add_busy_time(now)
            self.running += 1

    def end_slot(self, now: float, service_s: float) -> None:
        """Count a slot that is free again after computing for `service_s`."""
        with self._lock:
            self._add_busy_time(now)
            self.running -= 1
            self._service_s.append(service_s)

    def _add_busy_time(self, now: float) -> None:
        self._busy_s += self.running * max(0.0, now - self._changed_at_s)
        self._changed_at_s = max(now, self._changed_at_s)

    def utilization(self, now: float) -> float:
        """Share of slot time that was busy since the last call of this method, 0 to 1."""
        with self._lock:
            self._add_busy_time(now)
            slot_s = (now - self._reported_at_s) * self.concurrency
            share = self._busy_s / slot_s if slot_s > 0 else 0.0
            self._busy_s = 0.0
            self._reported_at_s = now
        return min(1.0, max(0.0, share))

    @property
    def queued(self) -> int:
        """Requests in flight that do not compute yet."""
        return max(0, self.in_flight - self.running)

    @property
    def service_ms(self) -> float:
        """Median computing time of recent tasks in milliseconds; 0 before the first."""
        recent = list(self._service_s)
        return median(recent) * 1e3 if recent else 0.0
