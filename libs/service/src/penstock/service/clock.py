"""Time as an argument: the one interface through which anything that waits sees the clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from.

    `monotonic` is for intervals and deadlines, `time` (Unix seconds) only where a person reads it.
    """

    def monotonic(self) -> float: ...

    def time(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def unix_ms(clock: Clock) -> int:
    """The time in milliseconds since 1970."""
    return round(clock.time() * 1000)
