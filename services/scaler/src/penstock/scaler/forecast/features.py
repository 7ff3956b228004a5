"""What a learned expert sees: lags, levels, the same moment of other days, the calendar.

Plain arrays; nothing is learned here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LAGS = (0, 1, 2, 3, 5, 8, 11)
WINDOW = 48
"""Samples that a row looks back, besides a day and a week."""
DAY_S = 86_400.0
WEEK_S = 7 * DAY_S


def rows(
    work: Array, level: Array, at: NDArray[np.int64], ahead: int, clock: tuple[float, float]
) -> Array:
    """One row of features for each index in `at`, about the sample `ahead` later.

    Args:
        work: samples, oldest first; level: their slow mean, of the same length.
        at: indices of the samples known last, each at least WINDOW - 1.
        ahead: samples between the last known one and the one that is forecast.
        clock: (Unix seconds of the first sample, seconds between samples).
    """
    began_s, step_s = clock
    base = np.maximum(level[at], 1e-9)
    recent = work[at[:, None] - np.arange(WINDOW)] / base[:, None]
    last = recent[:, :12]
    columns = [recent[:, lag] for lag in LAGS]
    columns += [recent[:, :3].mean(1), recent[:, :6].mean(1), recent.mean(1)]
    columns += [last.std(1), last.max(1), last.min(1)]
    columns += [
        recent.std(1),
        recent.max(1),
        np.partition(recent, WINDOW - 6, axis=1)[:, WINDOW - 6],
    ]
    for period_s in (DAY_S, WEEK_S):
        columns += _same_moment(work, level, at, (ahead, round(period_s / step_s)))
    columns += _calendar(
        began_s + (at + ahead).astype(np.float64) * step_s, known=(len(work) * step_s) >= 2 * DAY_S
    )
    columns.append(np.log(base))
    return np.column_stack(columns)


def _same_moment(
    work: Array, level: Array, at: NDArray[np.int64], step: tuple[int, int]
) -> list[Array]:
    """Value and smoothed value one period before the target, over the level now and over the level
    of then; 1 where unknown.
    """
    ahead, period = step
    then, middle = at - period, at + ahead - period
    known = then >= WINDOW
    # The two samples after the target's twin are known as long as the period is longer than what is
    # ahead.
    known &= middle + 2 <= at
    then, middle = np.where(known, then, 0), np.where(known, middle, 2)
    value = work[middle]
    smooth = work[middle[:, None] + np.arange(-2, 3)].mean(1)
    return [
        np.where(known, above / np.maximum(below, 1e-9), 1.0)
        for below in (level[at], level[then])
        for above in (value, smooth)
    ]


def _calendar(target_s: Array, known: bool) -> list[Array]:
    """Time of day and of week of the targets; all zero until two days were seen, for a share of one
    day is a trend.
    """
    if not known:
        return [np.zeros_like(target_s)] * 5
    day = (target_s / DAY_S) % 1.0
    weekday = (
        np.floor(target_s / DAY_S + 3.0) % 7.0
    )  # day 0 of Unix time was a Thursday; Monday is 0 here
    weekend = (weekday >= 5).astype(float)
    return [np.sin(2 * np.pi * day), np.cos(2 * np.pi * day), day, weekday, weekend]
