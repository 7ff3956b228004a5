"""The weights of the logit, fitted anew on the half of the data on which constants are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from penstock.bench.tool_pruning.ranked import RankedSet
from scipy.optimize import minimize

PENALTY = 1e-4
"""Of the weights' squares."""
Floats = NDArray[np.float64]


class Weights(NamedTuple):
    """Of the cosine and of the share of the best BM25 score."""

    similarity: float
    words: float


def fitted(sets: Sequence[RankedSet]) -> Weights:
    """The weights under which the needed tools are most probable."""
    samples = [(np.array(ranked.features), ranked.needed) for ranked in sets]

    def loss(weights: Floats) -> tuple[float, Floats]:
        total, slope = PENALTY * float(weights @ weights), 2 * PENALTY * weights
        for features, needed in samples:
            value, part = _loss(weights, features, needed)
            total, slope = total + value / len(samples), slope + part / len(samples)
        return total, slope

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B")
    return Weights(*(round(float(weight), 2) for weight in found.x))


def _loss(weights: Floats, features: Floats, needed: int) -> tuple[float, Floats]:
    """Minus the logarithm of the needed tool's probability, and its slope."""
    logits = features @ weights
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return -float(np.log(shares[needed])), shares @ features - features[needed]
