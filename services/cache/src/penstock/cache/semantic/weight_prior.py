"""What the calibration assumes of a vote's features before a scope has labels of its own.

The weights were fitted on 4,396 votes of four shuffles of half of Banking77's intents, each called
for 1,100 requests (`python -m penstock.bench semantic-cache --part prior`). What makes a vote
reliable is much the same in all scopes; how reliable votes are at all each scope learns for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

Row = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class WeightPrior:
    """A normal distribution of the calibration's weights.

    Attributes:
        means, spreads: of each feature, by which it is standardised.
        weights: the expected weight of each standardised feature, and of the bias.
        precisions: of these, as inverse variances.
    """

    means: Row
    spreads: Row
    weights: Row
    precisions: Row

    @classmethod
    def flat(cls, features: int) -> Self:
        """Nothing is known but that standardised weights are about as large as 1."""
        precisions = np.append(np.ones(features), 1e-3)
        return cls(np.zeros(features), np.ones(features), np.zeros(features + 1), precisions)


FEATURE_PRECISION, BIAS_PRECISION = 4.0, 0.1
"""Chosen on seeds of young scopes that no benchmark page reports."""
# In the order of `SemanticPolicy._vote`: mean, spread, weight.
FEATURES = (
    (0.7943, 0.1141, 0.250),  # similarity of the nearest prompt
    (0.7908, 0.1181, 0.263),  # of the nearest one with the voted answer
    (0.1734, 0.1305, 0.966),  # its margin over the best rival
    (0.6761, 0.2178, 0.118),  # share of the votes
    (0.0035, 0.0151, -0.171),  # how much nearer the nearest prompt is
    (2.6800, 0.6470, -0.078),  # entries of the class, as a logarithm
    (0.7386, 0.1198, 0.300),  # mean of the largest similarities
    (1.4992, 1.0312, 0.411),  # reliability of the class
    (0.7364, 0.1193, -0.323),  # cosine to the class's centroid
    (0.1573, 0.1239, 0.695),  # its margin
    (7.9078, 5.0827, 0.596),  # log odds by the discriminant
    (0.9014, 0.2981, -0.079),  # whether the class is its first choice
    (2.0422, 4.6619, 0.785),  # margin by the word model
    (0.3178, 0.9482, -0.058),  # its sign
    (0.0072, 0.0466, -0.128),  # share of answers seen once
)
BIAS = 4.051
_MEANS, _SPREADS, _WEIGHTS = np.array(FEATURES).T
SHIPPED = WeightPrior(
    _MEANS,
    _SPREADS,
    np.append(_WEIGHTS, BIAS),
    np.append(np.full(len(FEATURES), FEATURE_PRECISION), BIAS_PRECISION),
)
