"""Time as an argument: the one interface through which anything that waits sees the clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from penstock.service.purity import pure


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


@pure
def next_tick_s(now_s: float, period_s: float) -> float:
    """The next multiple of the period that is at least a tenth of it away, in monotonic seconds: a
    timer that fires a millisecond early does not tick twice.

    Waking a process costs more than what it then does at rest, and the monotonic clock is one for
    the whole machine: who waits by it is woken together with all others of the same period, as by
    the kernel's `round_jiffies`.

    Args:
        now_s: the time by the monotonic clock.
        period_s: seconds between two ticks.
    """
    tick_s = (now_s // period_s + 1.0) * period_s
    return tick_s if tick_s - now_s >= period_s / 10 else tick_s + period_s


@pure
def until_tick_s(now_s: float, period_s: float) -> float:
    """Seconds until that tick."""
    return next_tick_s(now_s, period_s) - now_s


async def next_tick(clock: Clock, period_s: float) -> None:
    """Sleep until a tick of that period; see `next_tick_s`."""
    await clock.sleep(until_tick_s(clock.monotonic(), period_s))
