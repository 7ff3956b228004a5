"""Point forecasts: means that forget, the daily profile, trees and ridge.

Each says what one future sample will be, or nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock.scaler.forecast.features import WINDOW, Array, rows
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

RATES = (0.05, 0.15, 0.4, 0.7)
SEASONAL_RATES = RATES[1:]
LEVEL_RATE = 2.0 / 25.0
PROFILE_RATE = 0.3
SMOOTH = 7
RATIO_BOUNDS = (0.4, 2.5)
MOST_ROWS = 6000
SHORT_ROWS = 1000
RIDGE_PENALTY = 300.0
RIDGE_CLIP = 5.0


class DailyProfile:
    """The usual course of a day: for each slot a mean over days that forgets, of a centred mean of
    samples.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.usual = np.full(slots, np.nan)

    def learn(self, tail: Array, index: int) -> None:
        """Take the last SMOOTH samples; `index` is the slot-counting index of the last one."""
        slot = (index - SMOOTH // 2) % self.slots
        value = float(tail.mean())
        old = self.usual[slot]
        self.usual[slot] = value if np.isnan(old) else old + PROFILE_RATE * (value - old)

    def ratio(self, index: int, ahead: int, lag: float) -> float:
        """Usual value `ahead` later over the usual value where an average with this lag stands; NaN
        while unknown.
        """
        before = self.usual[(index - round(lag)) % self.slots]
        after = self.usual[(index + ahead) % self.slots]
        if not before > 0:
            return float("nan")
        return float(np.clip(after / before, *RATIO_BOUNDS))


@dataclass(frozen=True)
class FittedExperts:
    """Extra trees, a random forest and a ridge regression, fitted to the demand over its level."""

    trees: tuple[ExtraTreesRegressor, RandomForestRegressor]
    ridge: Ridge
    centre: Array
    spread: Array

    @classmethod
    def fit(
        cls, work: Array, level: Array, ahead: int, clock: tuple[float, float], seed: int
    ) -> FittedExperts:
        """Learn from every sample whose future is known, the last MOST_ROWS of them.

        Takes about a second: not for an event loop.
        """
        at = np.arange(max(WINDOW - 1, len(work) - ahead - MOST_ROWS), len(work) - ahead)
        seen = rows(work, level, at, ahead, clock)
        target = work[at + ahead] / np.maximum(level[at], 1e-9)
        weight = np.sqrt(level[at]) + 1e-6
        coarse = 20 if len(at) < SHORT_ROWS else 40
        narrow = seen.astype(np.float32)
        trees = (
            ExtraTreesRegressor(60, min_samples_leaf=10, max_features=0.6, random_state=seed + 10),
            # Each tree sees half of the rows and tries a third of the features at a split,
            # Breiman's share for regression.
            RandomForestRegressor(
                40,
                min_samples_leaf=coarse,
                max_features=1 / 3,
                max_samples=0.5,
                random_state=seed + coarse,
            ),
        )
        for forest in trees:
            forest.fit(narrow, target, sample_weight=weight)
        centre, spread = seen.mean(0), seen.std(0) + 1e-9
        flat = np.clip((seen - centre) / spread, -RIDGE_CLIP, RIDGE_CLIP)
        capped = np.minimum(target, np.quantile(target, 0.995))
        return cls(
            trees,
            Ridge(alpha=RIDGE_PENALTY).fit(flat, capped, sample_weight=weight),
            centre,
            spread,
        )

    def predict(self, row: Array, level: float) -> list[float]:
        """What each of the three expects, in work."""
        narrow = row.astype(np.float32)
        found = [
            float(np.mean([tree.tree_.predict(narrow)[0, 0] for tree in forest.estimators_]))
            for forest in self.trees
        ]
        flat = np.clip((row - self.centre) / self.spread, -RIDGE_CLIP, RIDGE_CLIP)
        found.append(float(flat[0] @ self.ridge.coef_ + self.ridge.intercept_))
        return [value * level for value in found]
