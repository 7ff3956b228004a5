"""When is a cached answer likely enough to be right? A calibrated probability, and a threshold on
that probability which adjusts itself to the configured error bound.

`Calibration` turns the features of a voted answer into the probability that the answer is right.
`ServingThreshold` chooses the lowest probability that may be served such that the expected share of
errors among hits stays within the bound. That expectation is corrected by audits, that is, by
would-be hits that are called all the same: errors found by audits may raise the threshold, and
audits never lower it below what the calibration says. The result is a target with an audited
bound, not a guarantee.

Audits carry the same weight as any other label when the calibration is fitted. Each audit stands
for many hits, but weighting it by their number would let single audits bend the curve by chance.
The price is a known bias: of 10 errors that the calibration expects among hits, 5 to 7 occur.
`PRIOR_ERROR_RATIO` is the ratio that is assumed until audits have been made
(docs/decisions/0024-what-an-audit-weighs.md).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random

import numpy as np
from penstock.service.purity import pure

Row = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
MIN_LABELS = 150
"""Labels that a scope needs before it serves anything."""
FIRST_FITS = (50, 100, 150)
"""Numbers of labels at which the calibration is fitted first."""
FIT_EVERY = 50
"""Labels between two later fits."""
MAX_LABELS = 1_200
"""Only the latest labels are used: the more entries a scope holds, the more reliable the same
similarity is. Chosen on shuffles that no benchmark page reports.
"""
LAPSE_RATE = 0.0045
"""Share of cached answers that are wrong whatever the similarity; no probability exceeds 1 less
this. Chosen like `MAX_LABELS`, as is `PRIOR_ERROR_RATIO`.
"""
MODERATION = 0.3 * math.pi / 8.0
"""How strongly uncertain weights move a probability towards one half. Full moderation (pi / 8)
would keep a scope that makes no errors from serving.
"""
MIN_SPREAD = 1e-3
"""A feature whose standard deviation is smaller has not varied yet and is not scaled."""
BIAS_RIDGE = 1e-3
"""The bias is not regularised; this keeps its curvature from being zero."""
AUDIT_SHARE = 0.015
"""Share of would-be hits that are audited."""
TIGHTENED_AUDIT_SHARE = 0.15
TIGHTENED_INSPECTIONS = 60
"""After a failed audit this many would-be hits are audited at the higher share (tightened
inspection, as in ISO 2859), since other answers may have changed as well.
"""
WINDOW = 1_000
"""Latest probabilities from which the threshold is chosen."""
TUNE_EVERY = 20
"""Probabilities between two choices of the threshold."""
PRIOR_ERROR_RATIO = 0.7
"""Observed over expected errors among hits, before there are audits; also the lowest value used."""
MAX_ERROR_RATIO = 4.0
PRIOR_EXPECTED_ERRORS = 8.0
"""Weight of the prior, in expected errors."""
AUDIT_DECAY = 0.998
"""Factor by which each further audit reduces the weight of the earlier ones."""
RECENT_AUDITS = 100
BREAK_LEVEL = 0.01
"""The bound counts as broken when the latest audits would be this improbable under it (Clopper and
Pearson 1934).
"""
YOUNG_LABELS = 1_000
"""Labels at which half of the bound is aimed at; see `aimed_share`."""
UNREACHABLE = 2.0
"""A threshold that no probability reaches."""


@pure
class Calibration:
    """The probability that a voted answer is right, by ridge logistic regression on standardised
    features.

    With few labels, or features unlike those of any label, the weights are uncertain; that
    uncertainty moderates the probability (MacKay 1992). A lapse rate keeps it from exceeding the
    share of answers that are right at all (as in psychometric functions: Wichmann and Hill 2001).
    """

    def __init__(self) -> None:
        self.label_count = 0
        self._labels: deque[tuple[Row, bool]] = deque(maxlen=MAX_LABELS)
        self._mean: Row | None = None
        self._spread = np.zeros(0)
        self._weights = np.zeros(0)
        """One for each feature, and the bias."""
        self._covariance: Matrix = np.zeros((0, 0))
        """Of the weights, by Laplace's approximation."""

    @property
    def is_ready(self) -> bool:
        """True once there are enough labels to serve by."""
        return self.label_count >= MIN_LABELS and self._mean is not None

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
        if self._mean is None:
            return 0.0
        row = np.append((features - self._mean) / self._spread, 1.0)
        variance = float(row @ self._covariance @ row)
        score = float(row @ self._weights) / math.sqrt(1.0 + MODERATION * variance)
        return (1.0 - LAPSE_RATE) / (1.0 + math.exp(-max(min(score, 30.0), -30.0)))

    def _fit(self) -> None:
        is_right = np.array([right for _, right in self._labels])
        if is_right.all() or not is_right.any():
            return
        # Takes half a second to import, on the thread that learns, and only where labels come.
        from sklearn.linear_model import LogisticRegression

        features = np.array([features for features, _ in self._labels])
        mean = features.mean(axis=0)
        spread = features.std(axis=0)
        spread[spread < MIN_SPREAD] = 1.0
        scaled = (features - mean) / spread
        model = LogisticRegression(C=1.0, max_iter=200).fit(scaled, is_right)
        self._mean = mean
        self._spread = spread
        self._weights = np.append(model.coef_[0], model.intercept_[0])
        self._covariance = _weight_covariance(scaled, model.predict_proba(scaled)[:, 1])


def _weight_covariance(scaled: Matrix, probabilities: Row) -> Matrix:
    """Laplace's approximation: the inverse curvature of the regularised log likelihood."""
    rows = np.column_stack([scaled, np.ones(len(scaled))])
    curvature = (rows * (probabilities * (1.0 - probabilities))[:, None]).T @ rows
    curvature += np.diag([*[1.0] * scaled.shape[1], BIAS_RIDGE])
    return np.asarray(np.linalg.inv(curvature), np.float64)


@pure
def aimed_share(label_count: int) -> float:
    """The share of the error bound, 0 to 1, that a scope with so many labels aims at where its
    requests list the allowed answers.

    With few labels the weights, and so the expected errors, are uncertain, and chance decides on
    which side of an expectation some hundred hits end; so the aim is lower the younger the scope.
    """
    return label_count / (label_count + YOUNG_LABELS)


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """What a threshold would have meant for the latest look-ups: the share served, and the expected
    share of errors among them.
    """

    threshold: float
    hit_rate: float
    error_rate: float


@pure
class ServingThreshold:
    """The lowest probability that is served, for one bound on the share of errors among hits.

    `is_broken` is True while the latest audits contradict the bound; the scope then serves exact
    answers only.
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.value = UNREACHABLE
        self.audit_count = 0
        self.right_audit_count = 0
        self.is_broken = False
        self._tightened_left = 0
        """Would-be hits that are still to be audited at the higher share."""
        self._recent_audits: deque[bool] = deque(maxlen=RECENT_AUDITS)
        self._probabilities: deque[float] = deque(maxlen=WINDOW)
        self._observed_errors = 0.0
        self._expected_errors = 0.0
        self._since_tuned = 0

    @property
    def error_ratio(self) -> float:
        """Observed over expected errors, shrunk towards the prior (mean of a gamma
        distribution).
        """
        observed = self._observed_errors + PRIOR_EXPECTED_ERRORS * PRIOR_ERROR_RATIO
        expected = self._expected_errors + PRIOR_EXPECTED_ERRORS
        return min(max(observed / expected, PRIOR_ERROR_RATIO), MAX_ERROR_RATIO)

    def observe(self, probability: float, aim: float = 1.0) -> None:
        """Note the probability of a candidate that passed the gate; now and then tune the value.

        `aim` is the share of the bound that the expected errors are held to.
        """
        self._probabilities.append(probability)
        self._since_tuned += 1
        if self._since_tuned >= TUNE_EVERY:
            self._since_tuned = 0
            self.value = self._tuned(aim)

    def would_serve(self, probability: float, bound: float | None = None) -> bool:
        """Whether a probability reaches the threshold.

        A caller's tighter `bound` also requires this one answer's error probability to be within
        it; a looser one changes nothing.
        """
        if probability < self.value:
            return False
        return bound is None or bound >= self.bound or 1.0 - probability <= bound

    def draw_audit(self, rng: Random) -> bool:
        """Draw whether a would-be hit is audited, that is, called all the same."""
        share = TIGHTENED_AUDIT_SHARE if self._tightened_left else AUDIT_SHARE
        self._tightened_left = max(0, self._tightened_left - 1)
        return rng.random() < share

    def record_audit(self, probability: float, is_right: bool) -> None:
        """Note the result of an audit of a would-be hit with this probability."""
        self.audit_count += 1
        self.right_audit_count += is_right
        if not is_right:
            self._tightened_left = TIGHTENED_INSPECTIONS
        self._recent_audits.append(is_right)
        self.is_broken = self._is_bound_broken()
        self._record_error(probability, is_wrong=not is_right)

    def record_complaint(self, probability: float) -> None:
        """Note that a caller reported a hit as wrong.

        This raises the threshold. It is not a random sample, so the audited precision leaves it
        out.
        """
        self._record_error(probability, is_wrong=True)

    def trade_off(self, points: int = 21) -> list[TradeOffPoint]:
        """What other thresholds would have served in the window, the highest threshold first."""
        if not self._probabilities:
            return []
        ordered, errors = self._error_curve()
        places = np.unique(np.linspace(0, len(ordered) - 1, points).astype(int))
        return [
            TradeOffPoint(
                float(ordered[place]), (place + 1) / len(ordered), float(min(errors[place], 1.0))
            )
            for place in places
        ]

    def _tuned(self, aim: float) -> float:
        ordered, errors = self._error_curve()
        within_bound = np.flatnonzero(errors <= aim * self.bound)
        return float(ordered[within_bound[-1]]) if len(within_bound) else UNREACHABLE

    def _error_curve(self) -> tuple[Row, Row]:
        """The window's probabilities in falling order, and the share of errors expected among all
        down to each.
        """
        ordered = np.sort(np.fromiter(self._probabilities, np.float64))[::-1]
        counts = np.arange(1, len(ordered) + 1)
        return ordered, self.error_ratio * np.cumsum(1.0 - ordered) / counts

    def _is_bound_broken(self) -> bool:
        audits = len(self._recent_audits)
        wrong = self._recent_audits.count(False)
        if wrong == 0:
            return False
        return _beta_quantile(BREAK_LEVEL, wrong, audits - wrong + 1) > self.bound

    def _record_error(self, probability: float, *, is_wrong: bool) -> None:
        self._observed_errors = self._observed_errors * AUDIT_DECAY + is_wrong
        self._expected_errors = self._expected_errors * AUDIT_DECAY + (1.0 - probability)


@pure
def precision_of(right: int, audits: int) -> tuple[float, float]:
    """The share of audits that were right, and the lower end of its one-sided 95 % interval
    (Clopper and Pearson 1934); both 0 without audits.
    """
    if audits == 0:
        return 0.0, 0.0
    low = _beta_quantile(0.05, right, audits - right + 1) if right else 0.0
    return right / audits, low


@pure
def _beta_quantile(level: float, alpha: float, beta: float) -> float:
    """The quantile of a beta distribution."""
    from scipy.special import betaincinv  # imported only where there are audits

    return float(betaincinv(alpha, beta, level))
