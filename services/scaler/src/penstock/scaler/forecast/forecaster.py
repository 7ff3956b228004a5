"""The forecast of one pool's demand at one horizon.

Every expert forecasts the sample `ahead` intervals after the last one. When that sample arrives,
the forecast is judged: each expert's residual goes into its conformal quantiles, its loss into its
weight. The forecast is the weighted mean of the experts' quantiles, level by level.

The time comes in with the samples: there is no clock here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.experts import (
    EXPERTS,
    FITTED,
    HOLDS,
    LEARNED,
    ONLINE,
    REACTIVE,
    SCALED,
    FittedExperts,
    OnlineExperts,
)
from penstock.scaler.forecast.features import (
    DAY_S,
    WEEK_S,
    WINDOW,
    Array,
    DemandHistory,
    HistoryBuffer,
    feature_rows,
)
from penstock.scaler.forecast.scoring import (
    MIN_RESIDUALS,
    CoverageTracker,
    ExpertWeights,
    Residuals,
    TrustRule,
    mixed,
    pinball,
)
from penstock.service.purity import pure

Levels = tuple[float, ...]
LEVELS: Levels = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
MAX_GROWTH = 4.0
"""A forecast above this many times the maximum of the last WINDOW samples is cut there."""
EXCLUDED_SAMPLES = 200
"""An expert whose forecast was cut is left out for so many samples."""
FIRST_FIT = 96
MAX_SAMPLES = 6000
"""Samples kept, beside the week that features look back."""
SPREAD_RATE = 0.01


@dataclass(frozen=True)
class Forecast:
    """What one future sample may be.

    Args:
        quantiles: of the weighted forecast, one for each of the forecaster's levels.
        reactive: of the reactive rules alone.
        weights: of the experts by name, at the watched level.
        fallen_back: whether the reactive rules decide.
        ready: False while there is too little history for quantiles.
    """

    quantiles: Array
    reactive: Array
    weights: dict[str, float]
    fallen_back: bool
    ready: bool

    def at(self, levels: Levels, level: float) -> float:
        """Return the quantile in force at a level, interpolated between those computed."""
        in_force = self.reactive if self.fallen_back else self.quantiles
        return float(np.interp(level, levels, in_force))


@dataclass(frozen=True)
class _PendingForecast:
    """A forecast whose sample has not arrived: points, scales and quantiles of the experts, and the
    quantiles of the weighted forecast and of the reactive rules.
    """

    points: Array
    scales: Array
    quantiles: Array
    weighted: Array
    reactive: Array


@pure
class Forecaster:
    """Forecasts the sample `ahead` later from those seen so far.

    Args:
        ahead: samples between the last known one and the one forecast.
        start_s: when the first sample begins, in Unix seconds.
        step_s: seconds between samples.
        levels: quantile levels to compute, ascending.
        watched_level: the level by which forecast and reactive rules are compared.
    """

    def __init__(
        self,
        ahead: int,
        start_s: float,
        step_s: float,
        levels: Levels = LEVELS,
        watched_level: float = 0.95,
    ) -> None:
        self.ahead = ahead
        self.levels = np.array(levels)
        self._step_s = step_s
        self._watched = int(np.argmin(np.abs(self.levels - watched_level)))
        size = MAX_SAMPLES + round(WEEK_S / step_s) + WINDOW
        self._samples = HistoryBuffer(start_s, step_s, size)
        self._online = OnlineExperts(max(1, round(DAY_S / step_s)))
        self._fitted: FittedExperts | None = None
        self._fitted_at = 0
        self._residuals = [Residuals() for _ in EXPERTS]
        self._weights = ExpertWeights(len(EXPERTS), len(self.levels))
        self._trust = TrustRule(self.levels, self._watched)
        self._spread = 1.0
        self._excluded_until = np.zeros(len(EXPERTS), dtype=np.int64)
        self._pending: deque[_PendingForecast | None] = deque([None] * (ahead - 1))
        nothing = np.zeros(len(self.levels))
        self.last = Forecast(nothing, nothing, {}, True, False)

    @property
    def seen(self) -> int:
        """Samples observed so far."""
        return self._samples.count

    @property
    def history(self) -> DemandHistory:
        """The samples kept."""
        return self._samples.last()

    @property
    def coverage(self) -> CoverageTracker:
        """How often samples lay at or below the forecast quantiles."""
        return self._trust.coverage

    @property
    def fit_due(self) -> bool:
        """Whether the fitted experts should be fitted again.

        First after 96 samples; then when an eighth more is known, but after a day at the latest
        (of at least 128 samples).
        """
        new = self.seen - self._fitted_at
        if self._fitted is None:
            return self.seen >= FIRST_FIT and new >= FIRST_FIT // 3
        day = max(round(DAY_S / self._step_s), 128)
        return new >= min(max(32, self._fitted_at // 8), day)

    def train(self, seed: int = 1) -> FittedExperts:
        """Fit experts to the samples kept now; changes nothing here (see `adopt`).

        Takes about a second; may run in a thread.
        """
        return FittedExperts.fit(self.history.copy(), self.ahead, seed)

    def adopt(self, fitted: FittedExperts) -> None:
        """Use what `train` returned."""
        self._fitted = fitted
        self._fitted_at = self.seen

    def observe(self, work: float) -> Forecast:
        """Take the next sample and forecast the one `ahead` of it.

        Raises:
            ValueError: the sample is negative or not finite.
        """
        if not (np.isfinite(work) and work >= 0):
            raise ValueError(f"work must be finite and not negative, got {work}")
        due = self._pending.popleft() if len(self._pending) >= self.ahead else None
        if due is not None:
            self._judge(due, work)
        self._samples.append(work)
        self._online.learn(self._samples.work, self.seen - 1)
        self.last = self._forecast()
        return self.last

    def _forecast(self) -> Forecast:
        points = self._points()
        scales = self._scales(points)
        quantiles = self._quantiles(points, scales)
        weights = self._weights.weights(quantiles, slice(None))
        weighted = mixed(weights, quantiles) if weights.any() else quantiles[0]
        reactive = mixed(self._weights.weights(quantiles, REACTIVE), quantiles)
        ready = bool(np.isfinite(weighted).all())
        if not ready:
            weighted = reactive = np.full(len(self.levels), np.nan)
        self._pending.append(_PendingForecast(points, scales, quantiles, weighted, reactive))
        if not ready:
            weighted = reactive = np.full(len(self.levels), self._samples.work[-WINDOW:].max())
        shares = zip(EXPERTS, weights[:, self._watched], strict=True)
        return Forecast(
            weighted,
            reactive,
            {name: float(share) for name, share in shares if share > 0},
            self._trust.has_fallen_back or not ready,
            ready,
        )

    def _points(self) -> Array:
        """Every expert's forecast, within bounds; NaN from one that has none.

        Excludes experts whose forecast is out of bounds.
        """
        work = self._samples.work
        points = np.full(len(EXPERTS), np.nan)
        points[ONLINE] = self._online.forecast(self.seen - 1, self.ahead)
        if self._fitted is not None:
            points[FITTED] = self._fitted.predict(self._features(), self._samples.baseline)
        points[REACTIVE] = [work[-hold:].max() for hold in HOLDS]
        highest = MAX_GROWTH * work[-WINDOW:].max() + 1e-9
        wild = (points > highest) | (points < -highest)
        self._excluded_until[wild] = self.seen + EXCLUDED_SAMPLES
        points = np.clip(points, 0.0, highest)
        points[LEARNED] = points[SCALED] = points[FITTED].mean()
        bounded: Array = points
        return bounded

    def _features(self) -> Array:
        """The features of the newest sample, from no more of the past than they need."""
        history = self._samples.last(round(WEEK_S / self._step_s) + WINDOW + 8)
        return feature_rows(history, np.array([len(history.work) - 1]), self.ahead)

    def _scales(self, points: Array) -> Array:
        """What residuals are divided by: the standard deviation of counts; for reactive rules the
        point itself, so that their quantiles are factors.
        """
        scales = np.sqrt(points + 1.0)
        scales[SCALED] *= self._spread
        scales[REACTIVE] = points[REACTIVE] + 1e-9
        found: Array = scales
        return found

    def _quantiles(self, points: Array, scales: Array) -> Array:
        """Conformal quantiles of every expert; NaN from one that has none or is excluded."""
        found = np.full((len(EXPERTS), len(self.levels)), np.nan)
        for expert, residuals in enumerate(self._residuals):
            has_quantiles = residuals.count >= MIN_RESIDUALS
            excluded = self._excluded_until[expert] > self.seen
            if has_quantiles and not excluded and np.isfinite(points[expert]):
                offset = residuals.quantiles(self.levels) * scales[expert]
                found[expert] = np.maximum(0.0, points[expert] + offset)
        # After demand begins at zero, a residual relative to the forecast has no bound.
        capped: Array = np.minimum(found, MAX_GROWTH * self._samples.work.max() + 1e-9)
        return capped

    def _judge(self, due: _PendingForecast, work: float) -> None:
        """Learn from the sample that a forecast was about."""
        residuals = (work - due.points) / due.scales
        for expert, value in enumerate(residuals):
            if np.isfinite(value):
                self._residuals[expert].add(float(value))
        if np.isfinite(residuals[SCALED]):
            size = abs(float(residuals[LEARNED]))
            self._spread += SPREAD_RATE * (size - self._spread)
        self._weights.record(pinball(work, due.quantiles, self.levels))
        if np.isfinite(due.weighted).all():
            self._trust.record(work, due.weighted, due.reactive)
