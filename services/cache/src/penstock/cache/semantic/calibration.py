"""How likely is a voted answer to be right? A logistic regression over the features of the vote.

Each request that was called has shown whether its vote was right: these are the labels. They come
from prompts that were not sure enough to be served, and from audits. An audit weighs no more than
any other label: weighting it by the hits that it stands for would let single audits bend the curve
by chance (docs/decisions/0024-what-an-audit-weighs.md).
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from penstock.cache.semantic.weight_prior import SHIPPED, Row, WeightPrior
from penstock.service.purity import pure

Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
MIN_LABELS = 200
"""Labels that a scope needs before it serves anything. Between 150 and 200 labels, more than twice
as many answers are wrong as are expected: most classes have one entry, or none.
"""
FIRST_FITS = (50, 100, 150)
"""Numbers of labels at which the calibration is fitted first."""
FIT_EVERY = 50
"""Labels between two later fits."""
MAX_LABELS = 1_200
"""Only the latest labels are used: the more entries a scope holds, the more reliable the same
similarity is. Chosen on shuffles that no benchmark page reports, as is `LAPSE_RATE`.
"""
LAPSE_RATE = 0.0045
"""Share of cached answers that are wrong whatever the similarity; no probability exceeds 1 less
this.
"""
MODERATION = 0.3 * math.pi / 8.0
"""How strongly uncertain weights move a probability towards one half. Full moderation (pi / 8)
would keep a scope that makes no errors from serving.
"""
MAX_STEPS = 25
STEP_TOLERANCE = 1e-4
"""Newton's steps end when no weight moves by more."""
LOSS_TOLERANCE = 1e-9
"""A step that raises the loss by more is halved."""


@pure
class Calibration:
    """The probability that a voted answer is right, by logistic regression on standardised features
    with a normal prior of its weights.

    With few labels, or features unlike those of any label, the weights are uncertain; that
    uncertainty moderates the probability (MacKay 1992). A lapse rate keeps it from exceeding the
    share of answers that are right at all (as in psychometric functions: Wichmann and Hill 2001).
    """

    def __init__(self, prior: WeightPrior = SHIPPED) -> None:
        self.label_count = 0
        self._prior = prior
        self._labels: deque[tuple[Row, bool]] = deque(maxlen=MAX_LABELS)
        self._weights: Row | None = None
        """One for each feature, and the bias; None before the first fit."""
        self._covariance: Matrix = np.zeros((0, 0))
        """Of the weights, by Laplace's approximation."""

    @property
    def is_ready(self) -> bool:
        """True once there are enough labels to serve by."""
        return self.label_count >= MIN_LABELS

    def learn(self, features: Row, is_right: bool) -> None:
        """Add a label: whether the answer that was voted with these features was right."""
        self._labels.append((features, is_right))
        self.label_count += 1
        past_first_fits = self.label_count - FIRST_FITS[-1]
        if self.label_count in FIRST_FITS or (
            past_first_fits > 0 and past_first_fits % FIT_EVERY == 0
        ):
            self._fit()

    def probability(self, features: Row) -> float:
        """The probability, 0 to 1, that an answer with these features is right; 0 before a fit."""
        if self._weights is None:
            return 0.0
        row = np.append((features - self._prior.means) / self._prior.spreads, 1.0)
        variance = float(row @ self._covariance @ row)
        score = float(row @ self._weights) / math.sqrt(1.0 + MODERATION * variance)
        return (1.0 - LAPSE_RATE) / (1.0 + math.exp(-max(min(score, 30.0), -30.0)))

    def _fit(self) -> None:
        features = np.array([features for features, _ in self._labels])
        is_right = np.array([right for _, right in self._labels])
        scaled = (features - self._prior.means) / self._prior.spreads
        rows = np.column_stack([scaled, np.ones(len(scaled))])
        self._weights, self._covariance = fitted(rows, is_right, self._prior)


@pure
def fitted(rows: Matrix, is_right: Flags, prior: WeightPrior) -> tuple[Row, Matrix]:
    """The most probable weights, by Newton's method, and their covariance by Laplace's
    approximation: the inverse curvature there.

    Args:
        rows: standardised features, a row for each label; the last column is 1.
        is_right: the labels.
        prior: of the weights.
    """
    weights = prior.weights
    loss = _loss(rows, is_right, prior, weights)
    for _ in range(MAX_STEPS):
        probabilities = _sigmoid(rows @ weights)
        pull = prior.precisions * (weights - prior.weights)
        gradient = rows.T @ (probabilities - is_right) + pull
        step = np.linalg.solve(_curvature(rows, probabilities, prior), gradient)
        while (next_loss := _loss(rows, is_right, prior, weights - step)) > loss + LOSS_TOLERANCE:
            step = step / 2.0
        weights, loss = weights - step, next_loss
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    curvature = _curvature(rows, _sigmoid(rows @ weights), prior)
    return weights, np.asarray(np.linalg.inv(curvature), np.float64)


def _curvature(rows: Matrix, probabilities: Row, prior: WeightPrior) -> Matrix:
    spread = probabilities * (1.0 - probabilities)
    return np.asarray((rows * spread[:, None]).T @ rows + np.diag(prior.precisions))


def _loss(rows: Matrix, is_right: Flags, prior: WeightPrior, weights: Row) -> float:
    signed = np.where(is_right, 1.0, -1.0) * (rows @ weights)
    distance = prior.precisions * (weights - prior.weights) ** 2
    return float(np.logaddexp(0.0, -signed).sum() + 0.5 * distance.sum())


def _sigmoid(scores: Row) -> Row:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
