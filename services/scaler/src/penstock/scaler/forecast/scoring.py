"""How forecasts are judged by what happened: residuals, losses, coverage, trust.

Quantiles of an expert come from its past residuals (conformal prediction). Experts are weighted by
their pinball loss at each quantile level. The weighted forecast is compared with the reactive
rules, which decide alone while it does worse than they do.
"""

from __future__ import annotations

import numpy as np
from penstock.scaler.forecast.features import Array
from penstock.service.purity import pure

MIN_RESIDUALS = 30
"""An expert with fewer residuals has no quantiles."""
SHARPNESS = 40.0
LOSS_DECAY = 0.999
"""Losses are forgotten within about a thousand samples. Until so many are known, weights are less
sharp, in proportion, as with a constant rate on sums.
"""
RECENT_DECAY = 0.995
FALLBACK_RATIO = 1.1
"""The reactive rules take over when the forecast's recent loss is above theirs by this factor."""
MIN_COVERAGE_SAMPLES = 100
COVERAGE_RATE = 0.01
COVERAGE_MARGIN = 0.05
"""A recent shortfall above the nominal one by more than this counts against the forecast."""
TINY = 1e-12


@pure
def pinball(work: float, quantile: Array, level: Array | float) -> Array:
    """Return the pinball loss: what a quantile costs when the sample turned out as it did.

    Koenker and Bassett 1978.
    """
    excess = work - quantile
    loss: Array = np.maximum(level * excess, (level - 1.0) * excess)
    return loss


@pure
class Residuals:
    """The last residuals of one expert, in order of time and in order of size.

    `count`: how many are kept. Keeping them sorted makes a quantile a look-up.
    """

    def __init__(self, size: int = 2000) -> None:
        self._ring = np.zeros(size)
        self._sorted = np.zeros(size)
        self._next = 0
        self.count = 0

    def add(self, value: float) -> None:
        """Add a residual; the oldest is forgotten above the size."""
        if self.count == len(self._ring):
            self._remove(self._ring[self._next])
        place = int(np.searchsorted(self._sorted[: self.count], value))
        self._sorted[place + 1 : self.count + 1] = self._sorted[place : self.count].copy()
        self._sorted[place] = value
        self.count += 1
        self._ring[self._next] = value
        self._next = (self._next + 1) % len(self._ring)

    def _remove(self, value: float) -> None:
        kept = self._sorted[: self.count]
        place = int(np.searchsorted(kept, value))
        kept[place:-1] = kept[place + 1 :].copy()
        self.count -= 1

    def quantiles(self, levels: Array) -> Array:
        """Return conformal quantiles: the ceil((n + 1) q)-th smallest residual, interpolated.

        The largest residual where a level needs more than n residuals.
        """
        place = np.clip(levels * (self.count + 1) - 1.0, 0.0, self.count - 1.0)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, self.count - 1)
        part = place - low
        found: Array = self._sorted[low] * (1 - part) + self._sorted[high] * part
        return found

    def oldest_first(self) -> Array:
        """Return a copy of the residuals in order of time."""
        if self.count < len(self._ring):
            return self._ring[: self.count].copy()
        return np.roll(self._ring, -self._next)


@pure
class ExpertWeights:
    """Weights of experts by quantile level, from their losses so far.

    An expert weighs exp(-s (loss / least loss - 1)), where s grows to 40 within a thousand samples.
    """

    def __init__(self, experts: int, levels: int) -> None:
        self._loss = np.zeros((experts, levels))
        self._known = 0.0

    def record(self, loss: Array) -> None:
        """Add the losses of one sample: experts x levels, NaN for an expert without a forecast.

        Such an expert is given the mean loss of the others, so that silence is neither rewarded
        nor punished.
        """
        silent = ~np.isfinite(loss)
        mean = np.where(silent, 0.0, loss).sum(0) / np.maximum((~silent).sum(0), 1)
        self._known += (1.0 - LOSS_DECAY) * (1.0 - self._known)
        self._loss = LOSS_DECAY * self._loss + np.where(silent, mean, loss)

    def weights(self, quantiles: Array, among: slice) -> Array:
        """Return the weights of the experts in `among` that have quantiles; of the others, 0.

        Weights of a level add up to 1, unless no expert has quantiles.
        """
        usable = np.zeros(len(quantiles), dtype=bool)
        usable[among] = True
        usable &= np.isfinite(quantiles[:, 0])
        if not usable.any():
            return np.zeros_like(quantiles)
        loss = np.where(usable[:, None], self._loss, np.inf)
        least = np.maximum(loss.min(0), TINY)
        relative = np.maximum(loss, TINY) / least - 1.0
        weights = np.exp(-SHARPNESS * self._known * relative)
        normed: Array = weights / weights.sum(0)
        return normed


def mixed(weights: Array, quantiles: Array) -> Array:
    """Return the weighted quantiles of all experts, made ascending."""
    ascending: Array = np.maximum.accumulate(np.nansum(weights * quantiles, axis=0))
    return ascending


@pure
class CoverageTracker:
    """How often samples lay at or below the forecast quantiles: over all time, and recently.

    `count`: samples judged.
    """

    def __init__(self, levels: Array) -> None:
        self._levels = levels
        self._below = np.zeros(len(levels))
        self._recent_share = np.zeros(len(levels))
        self.count = 0

    def record(self, work: float, quantiles: Array) -> None:
        """Compare one sample with its quantiles."""
        below = work <= quantiles
        self.count += 1
        self._below += below
        rate = max(COVERAGE_RATE, 1.0 / self.count)
        self._recent_share += rate * (below - self._recent_share)

    def share(self, index: int) -> float:
        """Return the share of samples at or below a quantile; the level itself before any."""
        if not self.count:
            return float(self._levels[index])
        return float(self._below[index] / self.count)

    def recent_shortfall(self, index: int) -> float:
        """Return the share of about the last hundred samples above a quantile; 0 before those."""
        if self.count < MIN_COVERAGE_SAMPLES:
            return 0.0
        return 1.0 - float(self._recent_share[index])


@pure
class TrustRule:
    """Whether the reactive rules decide instead of the forecast.

    They do once the forecast's recent loss is above theirs by 10 %, or above theirs at all while
    too many samples exceed the forecast; until its loss is no more than theirs.

    Args:
        levels: quantile levels of the forecast.
        watched: index of the level by which both are compared.
    """

    def __init__(self, levels: Array, watched: int) -> None:
        self.coverage = CoverageTracker(levels)
        self.has_fallen_back = False
        self._level = float(levels[watched])
        self._watched = watched
        self._losses = np.zeros(2)

    def record(self, work: float, forecast: Array, reactive: Array) -> None:
        """Judge the quantiles of the forecast and of the reactive rules by the sample."""
        self.coverage.record(work, forecast)
        both = np.array([forecast[self._watched], reactive[self._watched]])
        self._losses = RECENT_DECAY * self._losses + pinball(work, both, self._level)
        ours, theirs = self._losses
        shortfall = self.coverage.recent_shortfall(self._watched)
        is_short = shortfall > 1.0 - self._level + COVERAGE_MARGIN
        if ours > FALLBACK_RATIO * theirs or (is_short and ours > theirs):
            self.has_fallen_back = True
        elif ours <= theirs:
            self.has_fallen_back = False
