"""What capacity that follows demand does to latency: a queue M(t)/G/c(t) on two courses of capacity
at equal mean cost.

First come, first served. Arrivals are thinned to 30 in a mean step; sizes are those of Azure's
calls (prompt tokens at 5,000 a second, generated ones at 40), scaled so that ten instances carry
the mean demand. One that is taken away ends its call first.
"""

from __future__ import annotations

import csv
import heapq
from collections import deque

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.scaling.reactive_rules import Array

ARRIVALS, INSTANCES = 30.0, 10.0
MOST_STEPS = 3_000
PREFILL_TOKENS_S, DECODE_TOKENS_S = 5_000.0, 40.0


def sizes(options: Options) -> Array:
    """Service times with mean 1: of Azure's conversation calls, else log-normal."""
    path = options.data / "azure-llm-2023" / "conv.csv" if options.data is not None else None
    if path is None or not path.exists():
        found = np.exp(np.random.default_rng(1).standard_normal(5_000))
    else:
        with path.open() as file:
            rows = list(csv.reader(file))[1:]
        found = np.array(
            [float(row[1]) / PREFILL_TOKENS_S + float(row[2]) / DECODE_TOKENS_S for row in rows]
        )
    scaled: Array = found / found.mean()
    return scaled


def latency_stddev_cut(work: Array, ours: Array, reactive: Array, service: Array) -> float:
    """1 - the spread of latencies with our capacity over that with the reactive one, scaled to the
    same mean number of instances.
    """
    work, ours, reactive = work[-MOST_STEPS:], ours[-MOST_STEPS:], reactive[-MOST_STEPS:]
    each = work.mean() / INSTANCES
    mine = np.maximum(1, np.ceil(ours / each)).astype(np.int64)
    theirs = _same_mean(reactive / each, float(mine.mean()))
    rate = work / work.mean() * ARRIVALS
    spread = [_stddev(rate, count, service * INSTANCES / ARRIVALS) for count in (mine, theirs)]
    return 1.0 - spread[0] / spread[1] if spread[1] > 0 else 0.0


def _same_mean(wanted: Array, mean: float) -> np.ndarray:
    low, high = 0.01, 100.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        below = np.maximum(1, np.ceil(wanted * middle)).mean() < mean
        low, high = (middle, high) if below else (low, middle)
    counts: np.ndarray = np.maximum(1, np.ceil(wanted * high)).astype(np.int64)
    return counts


def _stddev(rate: Array, counts: np.ndarray, service: Array) -> float:
    """Spread of latencies; time in steps. Arrivals and sizes are the same for both sides."""
    rng = np.random.default_rng(7)
    free: list[float] = []
    waiting: deque[tuple[float, float]] = deque()
    latencies: list[float] = []
    for step, count in enumerate(counts):
        while len(free) < count:
            heapq.heappush(free, float(step))
        while len(free) > count:
            heapq.heappop(free)
        arrived = rng.poisson(rate[step])
        waiting.extend(
            zip(
                np.sort(step + rng.random(arrived)).tolist(),
                rng.choice(service, arrived).tolist(),
                strict=True,
            )
        )
        while waiting and (began := max(free[0], waiting[0][0])) < step + 1:
            at, size = waiting.popleft()
            heapq.heapreplace(free, began + size)
            latencies.append(began + size - at)
    return float(np.std(latencies))
