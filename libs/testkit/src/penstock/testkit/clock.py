"""A clock that moves only when told to, and wakes sleepers in the order of their time."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class FakeClock:
    """Virtual time.

    `advance` runs everything that falls due, in order, and lets woken tasks run before moving on.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`."""
        end = self._now + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await _settle()
        self._now = end
        await _settle()


async def _settle() -> None:
    """Let every task that can run, run until it waits again."""
    for _ in range(20):
        await asyncio.sleep(0)
