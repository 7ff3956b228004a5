"""How many of the served answers may be wrong? A predictive limit from what the calibration
expects and what audits have found.

The calibration expects a number of errors among some answers: the sum of their probabilities of
being wrong. The true number differs for two reasons. Chance: given the expectation it is a Poisson
number. Bias: a scope's calibration expects too many or too few errors by an unknown ratio, which
differs between scopes. A ratio with a gamma distribution and a Poisson number together have a
negative binomial distribution (Greenwood and Yule 1920), which says how many errors there are with
confidence.
"""

from __future__ import annotations

import numpy as np
from penstock.service.purity import pure

Row = np.ndarray[tuple[int], np.dtype[np.float64]]
CONFIDENCE = 0.95
"""Probability with which the errors among all hits of a scope must stay within the bound."""
PRIOR_EXPECTED_ERRORS = 10.0
"""Weight, in expected errors, of the assumption that a calibration without labels expects as many
errors as there are.
"""
ERRORS_PER_LABEL = 0.05
"""Weight, in expected errors, that each label adds to the assumption of `LEARNT_ERROR_RATIO`."""
LEARNT_ERROR_RATIO = 0.7
"""Observed over expected errors among hits of a scope with many labels: these are from a time when
the scope knew less, so that it expects too many errors. Chosen, like the weights, on development
shuffles.
"""
AUDIT_DECAY = 0.998
"""Factor by which each further audit reduces the weight of the earlier ones."""


@pure
class ErrorRatio:
    """Observed over expected errors among would-be hits: a gamma distribution whose mean is 1 in a
    scope without labels, moves to `LEARNT_ERROR_RATIO` and narrows with labels, and goes where
    audits say.
    """

    def __init__(self) -> None:
        self._labels = 0
        self._observed = 0.0
        self._expected = 0.0

    @property
    def mean(self) -> float:
        """The expected ratio."""
        return self._shape / self._rate

    @property
    def _shape(self) -> float:
        learnt = LEARNT_ERROR_RATIO * ERRORS_PER_LABEL * self._labels
        return PRIOR_EXPECTED_ERRORS + learnt + self._observed

    @property
    def _rate(self) -> float:
        return PRIOR_EXPECTED_ERRORS + ERRORS_PER_LABEL * self._labels + self._expected

    def count_label(self) -> None:
        """Note that the calibration has one more label."""
        self._labels += 1

    def record(self, probability: float, *, is_wrong: bool) -> None:
        """Note what became of a would-be hit that was right with this probability."""
        self._observed = self._observed * AUDIT_DECAY + is_wrong
        self._expected = self._expected * AUDIT_DECAY + (1.0 - probability)

    def confidence(self, expected_errors: Row, tolerated_errors: Row) -> Row:
        """The probability that there are no more errors than tolerated, where so many are expected
        by the calibration; continuous in both.
        """
        from scipy.special import betainc  # imported only where a threshold is chosen

        # The negative binomial distribution function, by the regularised incomplete beta function.
        share = self._rate / (self._rate + expected_errors)
        return np.asarray(betainc(self._shape, tolerated_errors + 1.0, share))
