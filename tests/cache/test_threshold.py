"""The calibration and the threshold: how sure is sure enough, and how audits correct it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from penstock.cache.semantic.threshold import (
    LAPSE_RATE,
    PRIOR_ERROR_RATIO,
    TIGHTENED_INSPECTIONS,
    UNREACHABLE,
    Calibration,
    ServingThreshold,
    aimed_share,
    precision_of,
)

BOUND = 0.03


def learn_noisy(
    calibration: Calibration, rng: np.random.Generator, labels: int, noise: float
) -> None:
    """Labels that are right where the first of three features is positive, give or take noise."""
    for _ in range(labels):
        features = rng.normal(size=3)
        calibration.learn(features, bool(features[0] + noise * rng.normal() > 0))


def test_failed_audits_break_the_bound_and_good_ones_restore_it() -> None:
    threshold = ServingThreshold(BOUND)
    assert threshold.value == UNREACHABLE
    for _ in range(30):
        threshold.record_audit(0.99, True)
    assert not threshold.is_broken
    for _ in range(5):
        threshold.record_audit(0.99, False)
    assert threshold.is_broken
    assert threshold.error_ratio > 1.7 * PRIOR_ERROR_RATIO
    for _ in range(100):
        threshold.record_audit(0.99, True)
    assert not threshold.is_broken


def test_the_audited_precision_has_a_lower_confidence_limit() -> None:
    precision, low = precision_of(130, 135)
    assert precision == pytest.approx(130 / 135)
    assert 0.9 < low < precision
    assert precision_of(0, 0) == (0.0, 0.0)


def test_good_audits_never_lower_the_error_ratio_below_its_prior() -> None:
    threshold = ServingThreshold(BOUND)
    assert threshold.error_ratio == PRIOR_ERROR_RATIO
    for _ in range(300):
        threshold.record_audit(0.97, True)
    assert threshold.error_ratio == PRIOR_ERROR_RATIO


@pytest.mark.parametrize("times_expected", [1, 2])
def test_the_error_ratio_approaches_what_audits_show(times_expected: int) -> None:
    threshold = ServingThreshold(BOUND)
    ratios = [PRIOR_ERROR_RATIO]
    for number in range(1, 1_201):
        threshold.record_audit(0.9, number % 10 >= times_expected)
        if number in (100, 300, 1_200):
            ratios.append(threshold.error_ratio)
    assert ratios == sorted(ratios)
    assert ratios[-1] > 0.9 * times_expected


def test_less_is_served_where_audits_find_more_errors_than_expected() -> None:
    def share_served(wrong_every: int) -> float:
        threshold = ServingThreshold(BOUND)
        probabilities = np.linspace(0.5, 0.997, 1_000)
        for number in range(200):
            threshold.record_audit(0.96, number % wrong_every != 0)
        for probability in probabilities:
            threshold.observe(float(probability))
        return float((probabilities >= threshold.value).mean())

    as_expected, four_times = share_served(25), share_served(6)
    assert 0.0 < four_times < 0.6 * as_expected


@pytest.mark.parametrize(
    ("labels", "share"), [(0, 0.0), (250, 0.2), (1_000, 0.5), (4_000, 0.8), (99_000, 0.99)]
)
def test_the_older_a_scope_the_nearer_it_aims_to_the_bound(labels: int, share: float) -> None:
    assert aimed_share(labels) == pytest.approx(share)


@pytest.mark.parametrize("aim", [1.0, 0.5, 0.2])
def test_the_expected_errors_of_what_is_served_are_within_the_aim(aim: float) -> None:
    threshold = ServingThreshold(BOUND)
    probabilities = np.linspace(0.5, 0.999, 1_000)
    for probability in probabilities:
        threshold.observe(float(probability), aim)
    served = probabilities[probabilities >= threshold.value]
    expected = PRIOR_ERROR_RATIO * float((1.0 - served).mean())
    assert 0.9 * aim * BOUND < expected <= aim * BOUND


def test_after_a_failed_audit_more_would_be_hits_are_audited_for_a_while() -> None:
    threshold, rng = ServingThreshold(BOUND), Random(3)

    def audits_drawn() -> int:
        return sum(threshold.draw_audit(rng) for _ in range(TIGHTENED_INSPECTIONS))

    usual = sum(audits_drawn() for _ in range(20)) / 20
    threshold.record_audit(0.99, True)
    assert audits_drawn() <= 3 * usual + 3
    tightened = 0
    for _ in range(20):
        threshold.record_audit(0.99, False)
        tightened += audits_drawn()
    assert 6 * usual < tightened / 20 < 14 * usual
    assert sum(audits_drawn() for _ in range(20)) / 20 < 2 * usual


def test_few_wrong_labels_change_a_probability_little_and_many_change_it_much() -> None:
    likely = np.array([2.5, 0.0, 0.0])

    def probability_with(wrong_labels: int) -> float:
        calibration, rng = Calibration(), np.random.default_rng(5)
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
        calibration = Calibration()
        learn_noisy(calibration, np.random.default_rng(7), labels, 0.5)
        return calibration

    few, many = learnt(150), learnt(1_200)
    likely, far = np.array([1.5, 0.0, 0.0]), np.array([1.5, 60.0, 0.0])
    assert few.is_ready
    assert few.probability(likely) < many.probability(likely)
    assert few.probability(far) < 0.9 * few.probability(likely)
    assert few.probability(-likely) < 0.1
