"""Clocks for tests: one that moves only when a test moves it, and one that never waits."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from penstock.service.clock import SystemClock

LOOP_TURNS = 20
"""Turns of the event loop after which every task that can run has run until its next wait."""


class FakeClock:
    """Virtual time: `advance` wakes sleepers in the order of their time.

    Between two sleepers, the tasks that the first one woke run until they wait again.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._now

    def time(self) -> float:
        """The same virtual seconds, as Unix time."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`."""
        end = self._now + seconds
        await _run_ready_tasks()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await _run_ready_tasks()
        self._now = end
        await _run_ready_tasks()


async def _run_ready_tasks() -> None:
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)


class NoWaitClock(SystemClock):
    """The machine's clock, whose sleeps return at once.

    Attributes:
        slept_s: the lengths of the sleeps, in order.
    """

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Record the sleep."""
        self.slept_s.append(seconds)
