"""Stalls of the event loop: measured, logged, exported, and told by health.

While one piece of work holds the loop, the process sends, answers and hears nothing; callers take
it for hung after a quarter of a second. A task that sleeps for a moment again and again finds out
how late it wakes. What it finds is a detail of health, `penstock.event-loop`, and not the health of
the service: a slow process that is taken out leaves its work to others that are as busy.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from penstock.hosting.pace import CpuSeconds, Pace
from penstock.hosting.service import ReportsStalls, Service
from penstock.otel.telemetry import Telemetry
from penstock.service.background import Background
from penstock.service.clock import Clock

EVERY_S = 0.1
"""Seconds between two looks while the loop works."""
IDLE_EVERY_S = 1.0
"""The same while it is idle: a first stall after a rest may be measured by so much too short."""
STALL_S = 0.25
"""A delay from which on it is a stall: callers take a peer for hung that is silent for so long."""
WINDOW_S = 10.0
MAX_STALLED_SHARE = 0.2
"""Share of the window in stalls above which health says NOT_SERVING of the loop."""
LOGGED_S = 1.0
"""A stall from which on it is logged by itself."""

log = logging.getLogger(__name__)


class _Late(NamedTuple):
    at_s: float
    delay_s: float


class LoopDelays:
    """How late the loop was in the last WINDOW_S; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._late: deque[_Late] = deque()

    def add(self, now: float, delay_s: float) -> None:
        """Take one look: by how much the loop was late."""
        self._late.append(_Late(now, delay_s))
        while self._late[0].at_s < now - WINDOW_S:
            self._late.popleft()

    @property
    def longest_s(self) -> float:
        """The longest delay."""
        return max((late.delay_s for late in tuple(self._late)), default=0.0)

    @property
    def is_stalling(self) -> bool:
        """Whether stalls take more of the window than MAX_STALLED_SHARE."""
        stalled_s = sum(late.delay_s for late in self._late if late.delay_s >= STALL_S)
        return stalled_s > MAX_STALLED_SHARE * WINDOW_S


async def watch(
    clock: Clock,
    delays: LoopDelays,
    report: Callable[[bool], Awaitable[None]],
    cpu_s: CpuSeconds = time.thread_time,
) -> None:
    """Look at the loop until cancelled; `report` is told whether it is stalling, at each change."""
    was_stalling = False
    pace = Pace(EVERY_S, IDLE_EVERY_S, cpu_s)
    while True:
        before = clock.monotonic()
        pause_s = pace.pause_s(before)
        await clock.sleep(pause_s)
        now = clock.monotonic()
        delay_s = max(0.0, now - before - pause_s)
        pace.looked(now - before)
        delays.add(now, delay_s)
        if delay_s >= LOGGED_S:
            log.warning("the event loop did not run for %.1f s; callers took it for hung", delay_s)
        if delays.is_stalling is not was_stalling:
            was_stalling = delays.is_stalling
            await report(was_stalling)


@contextlib.asynccontextmanager
async def watched(
    services: Sequence[Service], clock: Clock, telemetry: Telemetry
) -> AsyncIterator[None]:
    """Watch the loop of these services of one process while the block runs."""
    delays, background = LoopDelays(), Background()
    ports = [port for service in services for port in service.ports]

    async def report(is_stalling: bool) -> None:
        log.log(
            logging.WARNING if is_stalling else logging.INFO,
            "the event loop %s, for up to %.1f s at a time",
            "is stalling" if is_stalling else "runs again",
            delays.longest_s,
        )
        for port in ports:
            if isinstance(port, ReportsStalls):
                await port.set_stalling(is_stalling)

    telemetry.gauge(
        "penstock.event_loop.delay",
        "s",
        "the longest time in the last 10 s for which the event loop did not run",
        lambda: delays.longest_s,
    )
    background.start(watch(clock, delays, report), "event loop watch")
    try:
        yield
    finally:
        await background.close()
