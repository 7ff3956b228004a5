"""The forecast of one pool at one horizon: experts, their residuals, and weights by pinball loss.

Time comes in with the samples.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.experts import (
    LEVEL_RATE,
    RATES,
    SEASONAL_RATES,
    SMOOTH,
    DailyProfile,
    FittedExperts,
)
from penstock.scaler.forecast.features import DAY_S, WEEK_S, WINDOW, Array, rows
from penstock.scaler.forecast.scoring import Residuals

Levels = tuple[float, ...]
LEVELS: Levels = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
HOLDS = (1, 6, 24)
"""Reactive candidates: the maximum of so many last samples, times a factor learnt from the past."""
EXPERTS = (
    *(f"mean {rate:g}" for rate in RATES),
    *(f"seasonal {rate:g}" for rate in SEASONAL_RATES),
    "extra trees",
    "random forest",
    "ridge",
    "learned",
    "learned, scaled",
    *(f"reactive {hold}" for hold in HOLDS),
)
TREES = EXPERTS.index("extra trees")
SCALED = EXPERTS.index("learned, scaled")
REACTIVE = EXPERTS.index("reactive 1")
LEAST_RESIDUALS = 30
SHARPNESS = 40.0
FORGET = 0.999
"""Losses forget within a thousand samples. Until then weights are as much less sharp as less is
known, as with a constant rate on sums.
"""
RECENT = 0.995
SANE = 4.0
"""A forecast above so many times the most of the last WINDOW samples is cut there, and its expert
is out for OUT samples.
"""
OUT = 200
FIRST_FIT = 96
KEPT = 6000
LOST = 1.1
"""The reactive rules take over when the forecast's recent loss is above theirs by this factor; back
below theirs it returns.
"""


@dataclass(frozen=True)
class Forecast:
    """What one future sample may be.

    `quantiles` belong to the forecaster's levels; `reactive` are those of the reactive rules alone.
    """

    quantiles: Array
    reactive: Array
    weights: dict[str, float]
    fallen_back: bool
    ready: bool

    def at(self, levels: Levels, level: float) -> float:
        """The quantile in force at a level, between those computed."""
        return float(
            np.interp(level, levels, self.reactive if self.fallen_back else self.quantiles)
        )


@dataclass(frozen=True)
class _Made:
    """A forecast that waits for its sample."""

    point: Array
    scale: Array
    candidate: Array
    mixed: Array
    reactive: Array


class Forecaster:
    """Forecasts the sample `ahead` later from those seen so far.

    Args:
        ahead: samples between the last known one and the one forecast.
        clock: (Unix seconds of the first sample, seconds between samples).
        levels: quantiles to compute, ascending.
        watch: the level by which forecast and reactive rules are compared.
    """

    def __init__(
        self, ahead: int, clock: tuple[float, float], levels: Levels = LEVELS, watch: float = 0.95
    ) -> None:
        self.ahead, self.levels = ahead, np.array(levels)
        self.began_s, self.step_s = clock
        self._watch = int(np.argmin(np.abs(self.levels - watch)))
        self._most = KEPT + round(WEEK_S / self.step_s) + WINDOW
        self._buffer = np.zeros((2, 2 * self._most))
        self._end = self._begin = 0
        self.seen = 0
        self._means = np.zeros(len(RATES))
        self._level = 0.0
        self._profile = DailyProfile(max(1, round(DAY_S / self.step_s)))
        self._residuals = [Residuals() for _ in EXPERTS]
        self._loss = np.zeros((len(EXPERTS), len(self.levels)))
        self._known = 0.0
        self._recent = np.zeros(2)
        self._spread = 1.0
        self._out_until = np.zeros(len(EXPERTS), dtype=np.int64)
        self._made: deque[_Made | None] = deque([None] * (ahead - 1))
        self._learned: FittedExperts | None = None
        self._fitted_at = 0
        self._fallen_back = False
        self.covered = CoverageTracker(self.levels)
        nothing = np.zeros(len(self.levels))
        self.last = Forecast(nothing, nothing, {}, True, False)

    @property
    def work(self) -> Array:
        """The samples kept, oldest first."""
        kept: Array = self._buffer[0, self._begin : self._end]
        return kept

    @property
    def fit_due(self) -> bool:
        """Whether the learned experts should be fitted again: after 96 samples, then when an eighth
        more is known, at least daily (but not more often than every 128 samples).
        """
        day = max(round(DAY_S / self.step_s), 128)
        if self._learned is None:
            return self.seen >= FIRST_FIT and self.seen - self._fitted_at >= FIRST_FIT // 3
        return self.seen - self._fitted_at >= min(max(32, self._fitted_at // 8), day)

    def train(self, seed: int = 1) -> FittedExperts:
        """Fit the learned experts to what is kept now; about a second, changes nothing here (see
        `adopt`).
        """
        kept = self._buffer[:, self._begin : self._end].copy()
        return FittedExperts.fit(kept[0], kept[1], self.ahead, self._clock(), seed)

    def adopt(self, learned: FittedExperts) -> None:
        """Use what `train` returned."""
        self._learned, self._fitted_at = learned, self.seen

    def observe(self, work: float) -> Forecast:
        """Take the next sample and forecast the one `ahead` of it.

        Raises:
            ValueError: the sample is negative or not finite.
        """
        if not (np.isfinite(work) and work >= 0):
            raise ValueError(f"work must be finite and not negative, got {work}")
        made = self._made.popleft() if len(self._made) >= self.ahead else None
        if made is not None:
            self._judge(made, work)
        self._append(work)
        point = self._points()
        scale = np.sqrt(point + 1.0)
        scale[SCALED] *= self._spread
        scale[REACTIVE:] = point[REACTIVE:] + 1e-9
        candidate = self._candidates(point, scale)
        mixed, weights = self._mix(candidate)
        reactive = self._mix_rows(candidate, slice(REACTIVE, None))
        ready = bool(np.isfinite(mixed).all())
        unknown = np.full(len(self.levels), np.nan)
        judged = (mixed, reactive) if ready else (unknown, unknown)
        self._made.append(_Made(point, scale, candidate, *judged))
        if not ready:
            mixed = reactive = np.full(len(self.levels), self.work[-WINDOW:].max())
        self.last = Forecast(mixed, reactive, weights, self._fallen_back or not ready, ready)
        return self.last

    def _clock(self) -> tuple[float, float]:
        return self.began_s + (self.seen - (self._end - self._begin)) * self.step_s, self.step_s

    def _append(self, work: float) -> None:
        if self._end == self._buffer.shape[1]:
            self._buffer[:, : self._most] = self._buffer[
                :, self._end - self._most : self._end
            ].copy()
            self._begin, self._end = 0, self._most
        first = self.seen == 0
        self._level = work if first else self._level + LEVEL_RATE * (work - self._level)
        rates = np.array(RATES)
        self._means = (
            np.full(len(RATES), work) if first else self._means + rates * (work - self._means)
        )
        self._buffer[:, self._end] = work, self._level
        self._end += 1
        self._begin = max(self._begin, self._end - self._most)
        self.seen += 1
        if self.seen >= SMOOTH:
            self._profile.learn(self.work[-SMOOTH:], self.seen - 1)

    def _points(self) -> Array:
        """Every expert's point forecast, kept sane; NaN from one that has none yet or is out."""
        now = self.seen - 1
        points = np.full(len(EXPERTS), np.nan)
        points[: len(RATES)] = self._means
        for place, rate in enumerate(SEASONAL_RATES):
            ratio = self._profile.ratio(now, self.ahead, (1 - rate) / rate)
            points[len(RATES) + place] = self._means[RATES.index(rate)] * ratio
        if self._learned is not None:
            points[TREES : TREES + 3] = self._learned.predict(self._row(), self._level)
        points[REACTIVE:] = [self.work[-hold:].max() for hold in HOLDS]
        most = SANE * self.work[-WINDOW:].max() + 1e-9
        wild = (points > most) | (points < -most)
        self._out_until[wild] = self.seen + OUT
        points = np.clip(points, 0.0, most)
        points[SCALED - 1] = points[SCALED] = points[TREES : TREES + 3].mean()
        answer: Array = points
        return answer

    def _row(self) -> Array:
        """The features of the newest sample, from no more of the past than they need."""
        span = min(self._end - self._begin, round(WEEK_S / self.step_s) + WINDOW + 8)
        kept = self._buffer[:, self._end - span : self._end]
        began = self.began_s + (self.seen - span) * self.step_s
        at = np.array([span - 1])
        return rows(kept[0], kept[1], at, self.ahead, (began, self.step_s))

    def _candidates(self, point: Array, scale: Array) -> Array:
        found = np.full((len(EXPERTS), len(self.levels)), np.nan)
        for expert, residuals in enumerate(self._residuals):
            usable = residuals.count >= LEAST_RESIDUALS and self._out_until[expert] <= self.seen
            if usable and np.isfinite(point[expert]):
                found[expert] = np.maximum(
                    0.0, point[expert] + residuals.quantiles(self.levels) * scale[expert]
                )
        # A residual of demand that began at nothing is endless as a ratio.
        capped: Array = np.minimum(found, SANE * self.work.max() + 1e-9)
        return capped

    def _mix(self, candidate: Array) -> tuple[Array, dict[str, float]]:
        weights = self._weights(candidate, slice(None))
        mixed = (
            np.maximum.accumulate(np.nansum(weights * candidate, axis=0))
            if weights.any()
            else candidate[0]
        )
        shown = weights[:, self._watch]
        return mixed, {
            name: float(part) for name, part in zip(EXPERTS, shown, strict=True) if part > 0
        }

    def _mix_rows(self, candidate: Array, part: slice) -> Array:
        weights = self._weights(candidate, part)
        mixed: Array = np.maximum.accumulate(np.nansum(weights * candidate, axis=0))
        return mixed

    def _weights(self, candidate: Array, part: slice) -> Array:
        """Weights by level over the experts in `part` that have spoken: exp(-s (loss / best - 1)),
        s = 40 after a thousand samples.
        """
        usable = np.zeros(len(EXPERTS), dtype=bool)
        usable[part] = True
        usable &= np.isfinite(candidate[:, 0])
        if not usable.any():
            return np.zeros_like(candidate)
        loss = np.where(usable[:, None], self._loss, np.inf)
        best = np.maximum(loss.min(0), 1e-12)
        weights = np.exp(-SHARPNESS * self._known * (np.maximum(loss, 1e-12) / best - 1.0))
        answer: Array = weights / weights.sum(0)
        return answer

    def _judge(self, made: _Made, work: float) -> None:
        """Learn from the sample that a forecast was about: residuals, losses, coverage, trust."""
        z = (work - made.point) / made.scale
        for expert, value in enumerate(z):
            if np.isfinite(value):
                self._residuals[expert].add(float(value))
        if np.isfinite(z[SCALED]):
            plain = abs(float(z[SCALED - 1]))
            self._spread += 0.01 * (plain - self._spread)
        loss = pinball(work, made.candidate, self.levels)
        # One that did not speak keeps up with the mean of the others, so that silence is neither
        # rewarded nor punished.
        silent = ~np.isfinite(loss)
        spoken = np.where(silent, 0.0, loss).sum(0) / np.maximum((~silent).sum(0), 1)
        self._known += (1.0 - FORGET) * (1.0 - self._known)
        self._loss = FORGET * self._loss + np.where(silent, spoken, loss)
        if np.isfinite(made.mixed).all():
            self.covered.add(work, made.mixed)
            self._trust(work, made)

    def _trust(self, work: float, made: _Made) -> None:
        sides = np.array([made.mixed[self._watch], made.reactive[self._watch]])
        self._recent = RECENT * self._recent + pinball(work, sides, self.levels[self._watch])
        ours, theirs = self._recent
        short = self.covered.recent_shortfall(self._watch) > 1.0 - self.levels[self._watch] + 0.05
        if ours > LOST * theirs or (short and ours > theirs):
            self._fallen_back = True
        elif ours <= theirs:
            self._fallen_back = False


class CoverageTracker:
    """How often samples lay below the forecast quantiles: over all time, and lately."""

    def __init__(self, levels: Array) -> None:
        self._levels = levels
        self.count = 0
        self._below = np.zeros(len(levels))
        self._late = np.zeros(len(levels))

    def add(self, work: float, quantiles: Array) -> None:
        below = work <= quantiles
        self.count += 1
        self._below += below
        rate = max(0.01, 1.0 / self.count)
        self._late += rate * (below - self._late)

    def share(self, place: int) -> float:
        """Share of samples at or below the quantile; the level itself before any."""
        return float(self._below[place] / self.count) if self.count else float(self._levels[place])

    def recent_shortfall(self, place: int) -> float:
        """Share of about the last hundred samples above the quantile."""
        return 1.0 - float(self._late[place]) if self.count >= 100 else 0.0


def pinball(work: float, quantile: Array, level: Array | float) -> Array:
    """Pinball loss: what a quantile costs when the sample turns out as it did (Koenker and Bassett
    1978).
    """
    over = work - quantile
    loss: Array = np.maximum(level * over, (level - 1.0) * over)
    return loss
