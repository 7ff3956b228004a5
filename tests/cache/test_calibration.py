"""The calibration: how likely a voted answer is right, by the labels so far."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.cache.semantic.calibration import LAPSE_RATE, Calibration, fitted
from penstock.cache.semantic.weight_prior import SHIPPED, WeightPrior


def learn_noisy(
    calibration: Calibration, rng: np.random.Generator, labels: int, noise: float
) -> None:
    """Labels that are right where the first of three features is positive, give or take noise."""
    for _ in range(labels):
        features = rng.normal(size=3)
        calibration.learn(features, bool(features[0] + noise * rng.normal() > 0))


def test_few_wrong_labels_change_a_probability_little_and_many_change_it_much() -> None:
    likely = np.array([2.5, 0.0, 0.0])

    def probability_with(wrong_labels: int) -> float:
        calibration, rng = Calibration(WeightPrior.flat(3)), np.random.default_rng(5)
        learn_noisy(calibration, rng, 1_200, 0.3)
        for _ in range(wrong_labels):
            calibration.learn(likely, False)
        learn_noisy(calibration, rng, 50, 0.3)
        return calibration.probability(likely)

    assert 0.98 < probability_with(0) <= 1.0 - LAPSE_RATE
    assert probability_with(1) > 0.99
    assert probability_with(200) < 0.7


def test_few_labels_and_features_unlike_any_label_lower_the_probability() -> None:
    def learnt(labels: int) -> Calibration:
        calibration = Calibration(WeightPrior.flat(3))
        learn_noisy(calibration, np.random.default_rng(7), labels, 0.5)
        return calibration

    few, many = learnt(200), learnt(1_200)
    likely, far = np.array([1.5, 0.0, 0.0]), np.array([1.5, 60.0, 0.0])
    assert few.is_ready
    assert few.probability(likely) < many.probability(likely)
    assert few.probability(far) < 0.9 * few.probability(likely)
    assert few.probability(-likely) < 0.1


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_fitted_weights_are_where_the_regularised_likelihood_is_flat(scale: float) -> None:
    """Also where the labels can be told apart without error, so that only the ridge ends it."""
    rng = np.random.default_rng(11)
    features = scale * rng.normal(size=(400, 4))
    rows = np.column_stack([features, np.ones(400)])
    is_right = features[:, 0] > 0.3 * scale
    prior = WeightPrior.flat(4)
    weights, covariance = fitted(rows, is_right, prior)
    gradient = rows.T @ (1 / (1 + np.exp(-rows @ weights)) - is_right) + prior.precisions * weights
    assert np.abs(gradient).max() < 1e-3
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_few_labels_leave_the_shipped_weights_and_many_replace_them() -> None:
    """Labels of a scope in which the best similarity says nothing and the vote's share all."""

    def margin_weight(labels: int) -> float:
        rng = np.random.default_rng(3)
        scaled = rng.normal(size=(labels, len(SHIPPED.means)))
        rows = np.column_stack([scaled, np.ones(labels)])
        weights, _ = fitted(rows, scaled[:, 3] > 0, SHIPPED)
        return float(weights[3] - weights[2])

    assert margin_weight(5) < 0.0
    assert margin_weight(1_000) > 3.0
