"""The threshold: how sure is sure enough, with what confidence, and how audits correct it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from penstock.cache.semantic.error_ratio import (
    CONFIDENCE,
    LEARNT_ERROR_RATIO,
    PRIOR_EXPECTED_ERRORS,
    ErrorRatio,
)
from penstock.cache.semantic.threshold import (
    TIGHTENED_INSPECTIONS,
    UNREACHABLE,
    ServingThreshold,
    precision_of,
)
from scipy import stats

BOUND = 0.03


def scope_errors(rng: np.random.Generator, candidates: int) -> tuple[int, int]:
    """Hits, and wrong ones among them, of a scope whose error ratio is drawn from the prior."""
    ratio = rng.gamma(PRIOR_EXPECTED_ERRORS, 1 / PRIOR_EXPECTED_ERRORS)
    threshold, chance = ServingThreshold(BOUND), Random(int(rng.integers(1 << 30)))
    hits = wrong = 0
    for error in rng.beta(0.3, 2.0, size=candidates):
        is_wrong = bool(rng.random() < min(1.0, ratio * error))
        probability = 1.0 - float(error)
        is_served = threshold.would_serve(probability)
        if is_served and not threshold.draw_audit(chance):
            threshold.record_hit(probability)
            hits, wrong = hits + 1, wrong + is_wrong
            continue
        threshold.observe_hits(threshold.take_hits())
        threshold.observe(probability)
        if is_served:
            threshold.record_audit(probability, not is_wrong)
    return hits, wrong


@pytest.mark.parametrize("candidates", [600, 2_500])
def test_scopes_of_any_age_keep_the_bound_with_confidence(candidates: int) -> None:
    rng = np.random.default_rng(candidates)
    ends = [scope_errors(rng, candidates) for _ in range(60)]
    over = sum(wrong > BOUND * hits for hits, wrong in ends)
    allowed = stats.binom.ppf(0.999, len(ends), 1.0 - CONFIDENCE)
    assert over <= allowed
    assert all(hits > 0.1 * candidates for hits, _ in ends)


def test_the_margin_shrinks_as_labels_and_hits_accumulate() -> None:
    """The same candidates; the widest error probability that is served, beside the widest that
    keeps the bound on average.
    """
    threshold, rng = ServingThreshold(BOUND), np.random.default_rng(2)
    shares = []
    for number, error in enumerate(rng.beta(0.3, 2.0, size=20_000)):
        probability = 1.0 - float(error)
        if threshold.would_serve(probability):
            threshold.record_hit(probability)
        else:
            threshold.observe(probability)
            threshold.error_ratio.count_label()
            threshold.observe_hits(threshold.take_hits())
        if number in (200, 1_000, 19_999):
            shares.append(float(stats.beta.cdf(1.0 - threshold.value, 0.3, 2.0)))
    without_margin = float(stats.beta.cdf(_widest_error(LEARNT_ERROR_RATIO), 0.3, 2.0))
    assert shares == sorted(shares)
    assert shares[0] < 0.9 * without_margin
    assert shares[-1] > 0.95 * without_margin


def _widest_error(ratio: float) -> float:
    """The error probability up to which the candidates of these tests keep the bound on average."""
    errors = np.sort(np.random.default_rng(0).beta(0.3, 2.0, size=200_000))
    means = ratio * np.cumsum(errors) / np.arange(1, len(errors) + 1)
    return float(errors[np.flatnonzero(means <= BOUND)[-1]])


def test_hits_count_once_before_and_after_the_log_says_them() -> None:
    threshold = ServingThreshold(BOUND)
    for probability in (0.99, 0.98, 0.97):
        threshold.record_hit(probability)
    threshold.withdraw_hit(0.98)
    assert threshold.hits == 2
    taken = threshold.take_hits()
    assert taken == (0.99, 0.97)
    assert threshold.take_hits() == ()
    threshold.observe_hits(taken)
    assert threshold.hits == 2


def test_confidence_is_that_of_a_poisson_number_where_the_ratio_is_known() -> None:
    ratio = ErrorRatio()
    for _ in range(5_000):
        ratio.record(0.0, is_wrong=True)
    known = ratio.confidence(np.array([4.0, 4.0]), np.array([4.0, 9.0]))
    assert known == pytest.approx(stats.poisson.cdf([4, 9], 4.0), abs=0.02)
    unknown = ErrorRatio().confidence(np.array([4.0]), np.array([9.0]))
    assert unknown[0] < known[1] - 0.005


def test_failed_audits_break_the_bound_and_good_ones_restore_it() -> None:
    threshold = ServingThreshold(BOUND)
    assert threshold.value == UNREACHABLE
    for _ in range(30):
        threshold.record_audit(0.99, True)
    assert not threshold.is_broken
    for _ in range(5):
        threshold.record_audit(0.99, False)
    assert threshold.is_broken
    assert threshold.error_ratio.mean > 1.3
    for _ in range(100):
        threshold.record_audit(0.99, True)
    assert not threshold.is_broken


def test_the_audited_precision_has_a_lower_confidence_limit() -> None:
    precision, low = precision_of(130, 135)
    assert precision == pytest.approx(130 / 135)
    assert 0.9 < low < precision
    assert precision_of(0, 0) == (0.0, 0.0)


def test_labels_and_audits_move_the_error_ratio_from_one_to_what_they_show() -> None:
    labelled, audited = ErrorRatio(), ErrorRatio()
    means = [labelled.mean]
    for number in range(4_000):
        labelled.count_label()
        if number in (200, 1_000, 3_999):
            means.append(labelled.mean)
    assert means[0] == 1.0
    assert means == sorted(means, reverse=True)
    assert means[-1] == pytest.approx(LEARNT_ERROR_RATIO, abs=0.03)
    for _ in range(20):
        audited.record(0.97, is_wrong=False)
    assert audited.mean > 0.9  # few audits say little
    for _ in range(500):
        audited.record(0.97, is_wrong=False)
    assert audited.mean < 0.65


@pytest.mark.parametrize("times_expected", [1, 2])
def test_the_error_ratio_approaches_what_audits_show(times_expected: int) -> None:
    threshold = ServingThreshold(BOUND)
    ratios = [0.0]
    for number in range(1, 1_201):
        threshold.record_audit(0.9, number % 10 >= times_expected)
        if number in (100, 300, 1_200):
            ratios.append(threshold.error_ratio.mean)
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
