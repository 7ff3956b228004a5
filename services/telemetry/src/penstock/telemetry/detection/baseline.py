"""The baseline of a group of requests: where its feature vectors usually lie, learned from a
sample.

It is a robust centre and covariance, Rousseeuw's minimum covariance determinant, which outliers in
the sample do not move. How far a request is from the centre is its squared Mahalanobis distance.
How rare such a distance is follows from the distances of the sample itself, as a conformal p-value,
so that nothing is assumed about their distribution.

`fit_baseline` takes tens of milliseconds and belongs in a thread.
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
SUPPORT_FRACTION = 0.75
"""Share of the sample that determines centre and covariance; the rest may be outliers."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where the feature vectors of a group usually lie."""

    centre: FeatureValues
    precision: tuple[FeatureValues, ...]
    """The inverse of the covariance matrix, by row."""
    distances: tuple[float, ...]
    """The squared distances of the sample, ascending."""

    def distance_parts(self, values: FeatureValues) -> FeatureValues:
        """Each feature's part of the squared distance from the centre; their sum is the distance.

        A feature counts only where it is worse than the centre.
        """
        deviations = [
            max(0.0, (value - centre) * worse) * worse
            for value, centre, worse in zip(values, self.centre, WORSE_DIRECTIONS, strict=True)
        ]
        return tuple(
            deviation * sum(p * other for p, other in zip(row, deviations, strict=True))
            for deviation, row in zip(deviations, self.precision, strict=True)
        )

    def surprisal(self, distance: float) -> float:
        """Minus the natural logarithm of the conformal p-value of a squared distance."""
        count = len(self.distances)
        at_least_as_far = count - bisect_left(self.distances, distance)
        return -math.log((at_least_as_far + 1.0) / (count + 1.0))


def fit_baseline(sample: Sequence[FeatureValues]) -> Baseline:
    """Learn a baseline from feature vectors.

    Noise of the size of MIN_DIFFERENCES is added, so that a feature that never moved has a spread.
    """
    # numpy and scikit-learn take a second to import, which is paid in the fitting thread.
    import numpy as np
    from sklearn.covariance import MinCovDet

    rows = np.asarray(sample, dtype=float)
    noise = np.random.default_rng(SEED).normal(size=rows.shape) * np.asarray(MIN_DIFFERENCES)
    with warnings.catch_warnings():
        # It warns of determinants that rise by rounding; the p-values make up for that.
        warnings.simplefilter("ignore")
        estimate = MinCovDet(support_fraction=SUPPORT_FRACTION, random_state=SEED).fit(rows + noise)
    precision = np.linalg.inv(estimate.covariance_ + np.diag(np.square(MIN_DIFFERENCES)))
    baseline = Baseline(
        tuple(float(value) for value in estimate.location_),
        tuple(tuple(float(value) for value in row) for row in precision),
        (),
    )
    distances = sorted(sum(baseline.distance_parts(tuple(row))) for row in rows.tolist())
    return Baseline(baseline.centre, baseline.precision, tuple(distances))
