"""The history of demand, and what a fitted expert sees of it: lags, means, the same moment of other
days, the calendar.

Demand is divided by its baseline (a slow mean), so that an expert learns the shape of demand and
not its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.service.purity import pure

Array = NDArray[np.float64]

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
BASELINE_RATE = 2.0 / 25.0
"""Rate of the exponential mean that demand is divided by before anything is learned from it."""
LAGS = (0, 1, 2, 3, 5, 8, 11)
WINDOW = 48
"""Samples that a row looks back, besides a day and a week."""
RECENT = 12
HIGH_RANK = 6
"""The sixth largest sample of the window: a high value that one outlier does not move."""
TINY = 1e-9


@dataclass(frozen=True)
class Sample:
    """Demand of one interval.

    Args:
        start_s: when the interval began, in Unix seconds.
        work: work that arrived in it.
        backlog: work that waited at its end.
    """

    start_s: float
    work: float
    backlog: float = 0.0


@dataclass(frozen=True)
class DemandHistory:
    """Samples, oldest first.

    Args:
        work: work of each interval.
        baseline: the slow exponential mean of the work at each sample.
        start_s: when the first sample began, in Unix seconds.
        step_s: seconds between samples.
    """

    work: Array
    baseline: Array
    start_s: float
    step_s: float

    def copy(self) -> DemandHistory:
        """Return a history that does not change while the original goes on."""
        return DemandHistory(self.work.copy(), self.baseline.copy(), self.start_s, self.step_s)


class HistoryBuffer:
    """The last samples of a series. `count`: samples ever appended.

    Args:
        start_s: when the first sample began, in Unix seconds.
        step_s: seconds between samples.
        size: samples kept.
    """

    def __init__(self, start_s: float, step_s: float, size: int) -> None:
        self._start_s = start_s
        self._step_s = step_s
        self._size = size
        # Twice the size, so that samples are moved to the front only once in `size` appends.
        self._buffer = np.zeros((2, 2 * size))
        self._begin = 0
        self._end = 0
        self.count = 0
        self.baseline = 0.0

    def append(self, work: float) -> None:
        """Add the next sample; the oldest is forgotten above the size."""
        if self._end == self._buffer.shape[1]:
            self._move_to_front()
        if self.count == 0:
            self.baseline = work
        else:
            self.baseline += BASELINE_RATE * (work - self.baseline)
        self._buffer[:, self._end] = work, self.baseline
        self._end += 1
        self._begin = max(self._begin, self._end - self._size)
        self.count += 1

    @property
    def work(self) -> Array:
        """Work of the samples kept, oldest first; a view."""
        kept: Array = self._buffer[0, self._begin : self._end]
        return kept

    def last(self, count: int | None = None) -> DemandHistory:
        """Return the last samples, or all that are kept, without copying them."""
        kept = self._end - self._begin
        count = kept if count is None else min(kept, count)
        rows = self._buffer[:, self._end - count : self._end]
        start_s = self._start_s + (self.count - count) * self._step_s
        return DemandHistory(rows[0], rows[1], start_s, self._step_s)

    def _move_to_front(self) -> None:
        kept = self._buffer[:, self._end - self._size : self._end].copy()
        self._buffer[:, : self._size] = kept
        self._begin = 0
        self._end = self._size


@pure
def feature_rows(history: DemandHistory, at: NDArray[np.int64], ahead: int) -> Array:
    """Return one row of features for each index in `at`.

    Args:
        at: indices of the samples known last, each at least WINDOW - 1.
        ahead: samples between the last known one and the one that is forecast.
    """
    baseline = np.maximum(history.baseline[at], TINY)
    window = history.work[at[:, None] - np.arange(WINDOW)] / baseline[:, None]
    recent = window[:, :RECENT]
    columns = [window[:, lag] for lag in LAGS]
    columns += [window[:, :3].mean(1), window[:, :6].mean(1), window.mean(1)]
    columns += [recent.std(1), recent.max(1), recent.min(1)]
    high = np.partition(window, WINDOW - HIGH_RANK, axis=1)[:, WINDOW - HIGH_RANK]
    columns += [window.std(1), window.max(1), high]
    for period_s in (DAY_S, WEEK_S):
        columns += _same_moment(history, at, ahead, round(period_s / history.step_s))
    columns += _calendar(history, at + ahead)
    columns.append(np.log(baseline))
    return np.column_stack(columns)


def _same_moment(
    history: DemandHistory, at: NDArray[np.int64], ahead: int, period: int
) -> list[Array]:
    """Demand one period before the target, single and smoothed, over the baseline of now and of
    then; 1 where unknown.
    """
    then = at - period
    middle = then + ahead
    # Smoothing needs the two samples after the middle. They are known as long as the period is
    # longer than the horizon.
    known = (then >= WINDOW) & (middle + 2 <= at)
    then = np.where(known, then, 0)
    middle = np.where(known, middle, 2)
    single = history.work[middle]
    smoothed = history.work[middle[:, None] + np.arange(-2, 3)].mean(1)
    return [
        np.where(known, demand / np.maximum(baseline, TINY), 1.0)
        for baseline in (history.baseline[at], history.baseline[then])
        for demand in (single, smoothed)
    ]


def _calendar(history: DemandHistory, target: NDArray[np.int64]) -> list[Array]:
    """Time of day and day of week of the targets.

    All zero until two days are known: on a single day, the time of day is no more than a trend.
    """
    target_s = history.start_s + target.astype(np.float64) * history.step_s
    if len(history.work) * history.step_s < 2 * DAY_S:
        return [np.zeros_like(target_s)] * 5
    day = (target_s / DAY_S) % 1.0
    # Day 0 of Unix time was a Thursday; Monday is 0 here.
    weekday = np.floor(target_s / DAY_S + 3.0) % 7.0
    weekend = (weekday >= 5).astype(float)
    return [np.sin(2 * np.pi * day), np.cos(2 * np.pi * day), day, weekday, weekend]
