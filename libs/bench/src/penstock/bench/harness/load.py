"""Closed-loop load: so many callers, each of which calls again as soon as it is answered."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Send = Callable[[int], Awaitable[object]]
"""Sends one request; the argument counts the requests of all callers, from 0."""


@dataclass(frozen=True)
class LoadResult:
    """Answers a second, and the latencies in milliseconds by request number."""

    rps: float
    latencies_ms: dict[int, float]

    def p50_ms(self, include: Callable[[int], bool] = lambda _: True) -> float:
        """Median latency of the requests for whose number `include` is true."""
        return statistics.median(
            latency for number, latency in self.latencies_ms.items() if include(number)
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def closed_loop(send: Send, callers: int, seconds: float) -> LoadResult:
    """Load with `callers` callers for `seconds`; requests begun in that time are awaited."""
    latencies_ms: dict[int, float] = {}
    began_s = time.perf_counter()
    end_s = began_s + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while (start_s := time.perf_counter()) < end_s:
            number = count
            count += 1
            await send(number)
            latencies_ms[number] = (time.perf_counter() - start_s) * 1e3

    await asyncio.gather(*(caller() for _ in range(callers)))
    return LoadResult(len(latencies_ms) / (time.perf_counter() - began_s), latencies_ms)
