"""What capacity that follows demand does to latency: a queue M(t)/G/c(t), served first come first
served, with two courses of capacity of equal mean cost.

Arrivals are thinned to 30 in a mean step. Service times are those of Azure's calls (prompt tokens
at 5,000 a second, generated ones at 40), scaled so that ten instances carry the mean demand. An
instance that is removed finishes its call first.
"""

from __future__ import annotations

import csv
import heapq
from collections import deque

import numpy as np
from numpy.typing import NDArray
from penstock.bench.harness.options import Options
from penstock.bench.scaling.reactive_rules import Array

Counts = NDArray[np.int64]

ARRIVALS, INSTANCES = 30.0, 10.0
MAX_STEPS = 3_000
PREFILL_TOKENS_S, DECODE_TOKENS_S = 5_000.0, 40.0
GENERATED_CALLS = 5_000
BISECTIONS = 40


def service_times(options: Options) -> Array:
    """Return service times with mean 1: of Azure's conversation calls, else log-normal ones."""
    path = options.data / "azure-llm-2023" / "conv.csv" if options.data is not None else None
    if path is None or not path.exists():
        times = np.exp(np.random.default_rng(1).standard_normal(GENERATED_CALLS))
    else:
        with path.open() as file:
            rows = list(csv.reader(file))[1:]
        times = np.array(
            [float(row[1]) / PREFILL_TOKENS_S + float(row[2]) / DECODE_TOKENS_S for row in rows]
        )
    scaled: Array = times / times.mean()
    return scaled


def latency_stddev_cut(work: Array, ours: Array, reactive: Array, service: Array) -> float:
    """Return how much smaller the standard deviation of latencies is with our capacity: 1 - ours /
    theirs.

    The reactive capacity is scaled to the same mean number of instances.

    Args:
        work, ours, reactive: demand and both capacities by step.
        service: service times with mean 1.
    """
    work, ours, reactive = work[-MAX_STEPS:], ours[-MAX_STEPS:], reactive[-MAX_STEPS:]
    instance_work = work.mean() / INSTANCES
    our_counts = np.maximum(1, np.ceil(ours / instance_work)).astype(np.int64)
    their_counts = _with_mean(reactive / instance_work, float(our_counts.mean()))
    rate = work / work.mean() * ARRIVALS
    scaled = service * INSTANCES / ARRIVALS
    our_spread = _latency_stddev(rate, our_counts, scaled)
    their_spread = _latency_stddev(rate, their_counts, scaled)
    return 1.0 - our_spread / their_spread if their_spread > 0 else 0.0


def _with_mean(wanted: Array, mean: float) -> Counts:
    """Whole instances in proportion to what is wanted, of this mean; the factor is bisected."""
    low, high = 0.01, 100.0
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        if np.maximum(1, np.ceil(wanted * middle)).mean() < mean:
            low = middle
        else:
            high = middle
    counts: Counts = np.maximum(1, np.ceil(wanted * high)).astype(np.int64)
    return counts


def _latency_stddev(rate: Array, counts: Counts, service: Array) -> float:
    """Standard deviation of latencies, in steps. Arrivals and service times are the same for each
    course of capacity.
    """
    rng = np.random.default_rng(7)
    free_at: list[float] = []
    waiting: deque[tuple[float, float]] = deque()
    latencies: list[float] = []
    for step, count in enumerate(counts):
        while len(free_at) < count:
            heapq.heappush(free_at, float(step))
        while len(free_at) > count:
            heapq.heappop(free_at)
        waiting.extend(_arrivals(step, rng.poisson(rate[step]), service, rng))
        while waiting and (began := max(free_at[0], waiting[0][0])) < step + 1:
            arrived, size = waiting.popleft()
            heapq.heapreplace(free_at, began + size)
            latencies.append(began + size - arrived)
    return float(np.std(latencies))


def _arrivals(
    step: int, count: int, service: Array, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """(time, service time) of the calls that arrive in a step, in order."""
    times = np.sort(step + rng.random(count)).tolist()
    return list(zip(times, rng.choice(service, count).tolist(), strict=True))
