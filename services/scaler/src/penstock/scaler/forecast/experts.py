"""Experts: methods that each forecast one future sample, as a single number.

Online experts learn from every sample at once: exponential means, and the same means corrected by
the usual course of the day. Fitted experts (extra trees, a random forest, ridge regression) are
trained on the history from time to time. Reactive rules take the maximum of the last samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from penstock.scaler.forecast.features import (
    TINY,
    WINDOW,
    Array,
    DemandHistory,
    feature_rows,
)

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge

RATES = (0.05, 0.15, 0.4, 0.7)
"""Rates of the exponential means."""
SEASONAL_RATES = RATES[1:]
HOLDS = (1, 6, 24)
"""The reactive rules: maxima of this many last samples, each times a factor learned from the past.
"""
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
"""Names of all experts; an expert's index here is its row in every array.

`learned` is the mean of the fitted experts; `learned, scaled` the same with residuals relative to
their usual size.
"""
ONLINE = slice(0, len(RATES) + len(SEASONAL_RATES))
FITTED = slice(EXPERTS.index("extra trees"), EXPERTS.index("ridge") + 1)
LEARNED = EXPERTS.index("learned")
SCALED = EXPERTS.index("learned, scaled")
REACTIVE = slice(EXPERTS.index("reactive 1"), None)

PROFILE_RATE = 0.3
PROFILE_WINDOW = 7
"""Samples of the centred mean that the daily profile is learned from."""
RATIO_BOUNDS = (0.4, 2.5)
MAX_ROWS = 6000
SHORT_ROWS = 1000
RIDGE_PENALTY = 300.0
RIDGE_CLIP = 5.0
TARGET_QUANTILE = 0.995
"""Ridge regression sees targets above this quantile as if they were at it."""


class DailyProfile:
    """The usual course of a day: for each slot, an exponential mean over days of smoothed demand.

    `values`: one for each slot; NaN where unknown.
    """

    def __init__(self, slots: int) -> None:
        self.values = np.full(slots, np.nan)

    def learn(self, tail: Array, index: int) -> None:
        """Learn from the last PROFILE_WINDOW samples, of which the last one has this index."""
        slot = (index - PROFILE_WINDOW // 2) % len(self.values)
        value = float(tail.mean())
        old = self.values[slot]
        self.values[slot] = value if np.isnan(old) else old + PROFILE_RATE * (value - old)

    def ratio(self, index: int, ahead: int, lag: float) -> float:
        """Return the usual demand `ahead` samples later over that where a mean with this lag is.

        NaN while either is unknown.
        """
        before = self.values[(index - round(lag)) % len(self.values)]
        after = self.values[(index + ahead) % len(self.values)]
        if not before > 0:
            return float("nan")
        return float(np.clip(after / before, *RATIO_BOUNDS))


class OnlineExperts:
    """Exponential means of demand, plain and corrected by the daily profile.

    Args:
        slots: samples in a day.
    """

    def __init__(self, slots: int) -> None:
        self._means = np.zeros(len(RATES))
        self._profile = DailyProfile(slots)

    def learn(self, work: Array, index: int) -> None:
        """Learn from the last sample of `work`, which has this index in the series."""
        last = work[-1]
        if index == 0:
            self._means = np.full(len(RATES), last)
        else:
            self._means = self._means + np.array(RATES) * (last - self._means)
        if index + 1 >= PROFILE_WINDOW:
            self._profile.learn(work[-PROFILE_WINDOW:], index)

    def forecast(self, index: int, ahead: int) -> Array:
        """Return the forecasts in the order of EXPERTS; NaN where one has none yet."""
        seasonal = [
            self._means[RATES.index(rate)] * self._profile.ratio(index, ahead, (1 - rate) / rate)
            for rate in SEASONAL_RATES
        ]
        return np.array([*self._means, *seasonal])


@dataclass(frozen=True)
class FittedExperts:
    """Extra trees, a random forest and ridge regression, fitted to demand over its baseline.

    Args:
        centre, spread: mean and standard deviation of each feature, for ridge regression.
    """

    trees: tuple[ExtraTreesRegressor, RandomForestRegressor]
    ridge: Ridge
    centre: Array
    spread: Array

    @classmethod
    def fit(cls, history: DemandHistory, ahead: int, seed: int) -> FittedExperts:
        """Fit to every sample whose future is known, the last MAX_ROWS of them.

        Takes about a second: not for an event loop.
        """
        from sklearn.linear_model import Ridge  # imported by scalers that learn, in their thread

        work, baseline = history.work, history.baseline
        end = len(work) - ahead
        at = np.arange(max(WINDOW - 1, end - MAX_ROWS), end)
        features = feature_rows(history, at, ahead)
        target = work[at + ahead] / np.maximum(baseline[at], TINY)
        weight = np.sqrt(baseline[at]) + 1e-6
        trees = _forests(len(at), seed)
        for forest in trees:
            forest.fit(features.astype(np.float32), target, sample_weight=weight)
        centre, spread = features.mean(0), features.std(0) + TINY
        standard = _standardised(features, centre, spread)
        capped = np.minimum(target, np.quantile(target, TARGET_QUANTILE))
        ridge = Ridge(alpha=RIDGE_PENALTY).fit(standard, capped, sample_weight=weight)
        return cls(trees, ridge, centre, spread)

    def predict(self, row: Array, baseline: float) -> list[float]:
        """Return what each of the three expects, in work.

        Args:
            row: one row of features.
            baseline: the baseline of the sample that the row is about.
        """
        narrow = row.astype(np.float32)
        shares = [
            float(np.mean([tree.tree_.predict(narrow)[0, 0] for tree in forest.estimators_]))
            for forest in self.trees
        ]
        standard = _standardised(row, self.centre, self.spread)
        shares.append(float(standard[0] @ self.ridge.coef_ + self.ridge.intercept_))
        return [share * baseline for share in shares]


def _forests(rows: int, seed: int) -> tuple[ExtraTreesRegressor, RandomForestRegressor]:
    """Untrained forests. In the random forest each tree sees half of the rows and tries a third of
    the features at a split, Breiman's share for regression. (A share would be taken of the sum of
    the rows' weights, which grows with demand.)
    """
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    min_leaf = 20 if rows < SHORT_ROWS else 40
    return (
        ExtraTreesRegressor(60, min_samples_leaf=10, max_features=0.6, random_state=seed + 10),
        RandomForestRegressor(
            40,
            min_samples_leaf=min_leaf,
            max_features=1 / 3,
            max_samples=max(1, rows // 2),
            random_state=seed + min_leaf,
        ),
    )


def _standardised(features: Array, centre: Array, spread: Array) -> Array:
    clipped: Array = np.clip((features - centre) / spread, -RIDGE_CLIP, RIDGE_CLIP)
    return clipped
