"""The latencies of an M/G/c queue, by simulation. Pure: no clock, no chance of its own.

Calls arrive by Poisson's law, wait in one queue in their order, and each of c servers serves one at
a time; service times are drawn from those that were measured. For c > 1 there is no closed form of
a quantile of its latencies, so the queue is simulated (by the recursion of Kiefer and Wolfowitz,
*On the theory of queues with many servers*, 1955).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

WARM_UP_SHARE = 0.05
"""Calls at the start of a simulation that are left out, since the queue begins empty."""


def queue_latencies_ms(
    service_ms: Sequence[float], servers: int, load: float, calls: int, rng: np.random.Generator
) -> list[float]:
    """Latencies of so many calls: waiting and service, in milliseconds.

    Args:
        service_ms: service times to draw from.
        servers: c; at least 1.
        load: arrivals as a share of capacity, c ÷ mean service time; above 0 and below 1.
        calls: how many to simulate.
        rng: the source of chance.

    Raises:
        ValueError: the load or the number of servers is out of its range, or there is no service
            time.
    """
    if not 0 < load < 1 or servers < 1 or not len(service_ms):
        raise ValueError("an M/G/c queue needs service times, a server, and a load between 0 and 1")
    sample = np.asarray(service_ms, dtype=np.float64)
    gaps = rng.exponential(sample.mean() / (servers * load), size=calls)
    drawn = rng.choice(sample, size=calls)
    latencies = list(_latencies(np.cumsum(gaps).tolist(), drawn.tolist(), servers))
    return latencies[int(calls * WARM_UP_SHARE) :]


def _latencies(
    arrivals: Sequence[float], services: Sequence[float], servers: int
) -> Iterator[float]:
    """First come, first served by the server that is free first."""
    free_at = [0.0] * servers
    for arrival, service in zip(arrivals, services, strict=True):
        end = max(arrival, free_at[0]) + service
        heapq.heapreplace(free_at, end)
        yield end - arrival
