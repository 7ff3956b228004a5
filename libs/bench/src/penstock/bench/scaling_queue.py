"""What capacity that follows demand does to latency: one queue on two courses of capacity at equal mean cost."""

from __future__ import annotations

import numpy as np
from penstock.bench.scaling_rules import Array


def latency_stddev_cut(work: Array, ours: Array, reactive: Array) -> float:
    """1 - the spread of waits with our capacity over that with a reactive one scaled to the same mean.

    First come first served, in fluid: what exceeds the capacity of a step waits; a step's wait is the backlog at its end over the
    capacity then. Weighted by the work that arrived.
    """
    same = reactive * (ours.mean() / reactive.mean())
    theirs = _stddev(work, same)
    return 1.0 - _stddev(work, ours) / theirs if theirs > 0 else 0.0


def _stddev(work: Array, capacity: Array) -> float:
    waits, backlog = np.empty_like(work), 0.0
    for step, (arrived, served) in enumerate(zip(work, capacity, strict=True)):
        backlog = max(0.0, backlog + float(arrived) - float(served))
        waits[step] = backlog / max(float(served), 1e-9)
    mean = np.average(waits, weights=work)
    return float(np.sqrt(np.average((waits - mean) ** 2, weights=work)))
