"""Closed-loop load: so many callers, each asking again as soon as it is answered, for so many
seconds.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[int], Awaitable[object]]
"""Sends one request; the argument counts requests over all callers."""


@dataclass(frozen=True)
class Measured:
    """Answers a second, and the latencies in milliseconds by request number."""

    rps: float
    latencies_ms: dict[int, float]

    def p50_ms(self, keep: Callable[[int], bool] = lambda _: True) -> float:
        """Median latency of the requests that `keep` names."""
        return statistics.median(
            value for number, value in self.latencies_ms.items() if keep(number)
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def closed_loop(ask: Ask, callers: int, seconds: float) -> Measured:
    """Run `callers` callers for `seconds`; requests begun in that time are all waited for."""
    latencies: dict[int, float] = {}
    began = time.perf_counter()
    end = began + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while (start := time.perf_counter()) < end:
            number, count = count, count + 1
            await ask(number)
            latencies[number] = (time.perf_counter() - start) * 1e3

    await asyncio.gather(*(caller() for _ in range(callers)))
    in_time = sum(1 for _ in latencies)
    return Measured(in_time / (time.perf_counter() - began), latencies)
