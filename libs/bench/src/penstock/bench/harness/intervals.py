"""How far a figure may be off: intervals by resampling clusters, and of shares of a count."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

RESAMPLES = 2_000
Positions = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class Interval(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float


def cluster_interval(
    clusters: int,
    statistic: Callable[[Positions], float],
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The percentile interval of a statistic over clusters drawn with replacement (Efron and
    Tibshirani 1993; what belongs together, such as the calls of one conversation, is drawn
    together).

    Args:
        clusters: their number, at least 1.
        statistic: of the clusters at these positions, which may repeat.
        seed: of the draws.
        resamples: how often is drawn.

    Raises:
        ValueError: there is no cluster.
    """
    if clusters < 1:
        raise ValueError("an interval needs at least one cluster")
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, clusters, clusters)) for _ in range(resamples)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(low), float(high))


def share_interval(count: int, of: int) -> Interval:
    """The interval of a share that was seen `count` times `of` times (Clopper and Pearson 1934);
    0 to 1 where nothing was seen.

    Raises:
        ValueError: the count is negative or larger than `of`.
    """
    if not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is no share")
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0
    return Interval(low, high)
