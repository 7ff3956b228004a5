"""What is usual, learnt from a sample: robust centre and spread (Rousseeuw's minimum covariance
determinant), distances calibrated.

Slow (tens of milliseconds): belongs in a thread. Plain numbers in and out.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.telemetry.detection.request_features import (
    MIN_DIFFERENCES,
    WORSE_DIRECTIONS,
    FeatureValues,
)

SEED = 20260
SUPPORT = 0.75
"""Share of the sample that the centre and spread are made of; the quarter that fits worst has no
say.
"""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Centre, inverse covariance, and the sample's own distances in order."""

    centre: FeatureValues
    precision: tuple[FeatureValues, ...]
    distances: tuple[float, ...]

    def distance_parts(self, values: FeatureValues) -> FeatureValues:
        """Each feature's part of the squared robust distance, counting only what is worse than the
        centre.
        """
        away = [
            max(0.0, (value - middle) * worse) * worse
            for value, middle, worse in zip(values, self.centre, WORSE_DIRECTIONS, strict=True)
        ]
        return tuple(
            one * sum(p * other for p, other in zip(row, away, strict=True))
            for one, row in zip(away, self.precision, strict=True)
        )

    def surprisal(self, distance: float) -> float:
        """Minus the natural logarithm of the conformal p-value: how rare such a distance was in the
        sample.
        """
        count = len(self.distances)
        as_far = count - bisect_left(self.distances, distance)
        return -math.log((as_far + 1.0) / (count + 1.0))


def fit_baseline(sample: Sequence[FeatureValues]) -> Baseline:
    """Learn what is usual.

    Each feature gets noise of its floor's size, so that one that never moved has a spread too.
    """
    import numpy as np  # a second to import: paid in the thread that fits
    from sklearn.covariance import MinCovDet

    rows = np.asarray(sample, dtype=float)
    noisy = rows + np.random.default_rng(SEED).normal(size=rows.shape) * np.asarray(MIN_DIFFERENCES)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a determinant that rose by rounding; the result is checked by its calibration
        found = MinCovDet(support_fraction=SUPPORT, random_state=SEED).fit(noisy)
    precision = np.linalg.inv(found.covariance_ + np.diag(np.square(MIN_DIFFERENCES)))
    centre = tuple(float(value) for value in found.location_)
    usual = Baseline(centre, tuple(tuple(float(value) for value in row) for row in precision), ())
    distances = sorted(sum(usual.distance_parts(tuple(row))) for row in rows.tolist())
    return Baseline(usual.centre, usual.precision, tuple(distances))
