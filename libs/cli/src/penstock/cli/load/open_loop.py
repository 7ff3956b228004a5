"""Sends calls at the times at which they are due, and measures from those times."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from penstock.cli.load.histogram import Histogram
from penstock.client import PenstockError
from penstock.service.clock import Clock

Arrivals = Literal["poisson", "constant"]
Send = Callable[[int], Awaitable[object]]
"""Sends one call; takes its number, counted from 0. Raises PenstockError."""


@dataclass
class LoadResult:
    """What a load gave. Not frozen: it counts while the load goes on.

    Attributes:
        latencies: of the calls that were answered, from the time at which they were due.
        failures: calls that failed, by gRPC code.
        skipped: calls that were due while `max_in_flight` others were unanswered; never sent.
        late_ms: how much later than due calls were sent, at most: the generator's own delay.
        elapsed_s: from the first call that was due to the last answer.
    """

    latencies: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    late_ms: float = 0.0
    elapsed_s: float = 0.0

    @property
    def answered_per_s(self) -> float:
        """Answers a second."""
        return self.latencies.total / self.elapsed_s if self.elapsed_s else 0.0


def due_times_s(
    rate: float, duration_s: float, arrivals: Arrivals, rng: random.Random
) -> Iterator[float]:
    """The times at which calls are due, in seconds after the start, below `duration_s`.

    Args:
        rate: mean calls a second.
        arrivals: `poisson`: independent calls, with exponential gaps; `constant`: equal gaps.
    """
    due_s = 0.0
    while due_s < duration_s:
        yield due_s
        due_s += rng.expovariate(rate) if arrivals == "poisson" else 1 / rate


async def run_open_loop(
    send: Send, due_s: Iterator[float], clock: Clock, max_in_flight: int
) -> LoadResult:
    """Send a call at each due time, and return once all are answered."""
    result = LoadResult()
    in_flight: set[asyncio.Task[None]] = set()
    start_s = clock.monotonic()
    for number, offset_s in enumerate(due_s):
        call_due_s = start_s + offset_s
        if (wait_s := call_due_s - clock.monotonic()) > 0:
            await clock.sleep(wait_s)
        else:
            await asyncio.sleep(0)  # Behind the schedule: answers must still be taken.
        result.late_ms = max(result.late_ms, (clock.monotonic() - call_due_s) * 1e3)
        if len(in_flight) >= max_in_flight:
            result.skipped += 1
            continue
        task = asyncio.create_task(_measure(send, number, call_due_s, clock, result))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)
    result.elapsed_s = clock.monotonic() - start_s
    return result


async def _measure(send: Send, number: int, due_s: float, clock: Clock, result: LoadResult) -> None:
    try:
        await send(number)
    except PenstockError as error:
        result.failures[error.code] += 1
    else:
        result.latencies.add((clock.monotonic() - due_s) * 1e3)
