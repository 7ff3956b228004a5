"""How sure is sure enough: the calibrated probability, and the threshold that tunes itself to the
user's bound. Plain.

What is promised is a target with an audited bound, never a guarantee: the expected error among
would-be hits is kept at or below the bound, corrected by what audits have shown, which may tighten
it and never loosens it.

Labels come from prompts that were not sure enough, and from few audits, each of which stands for
many hits. With such a weight an audit would bend the curve by chance, so that it weighs as any
label does. The price is a known bias: of 10 errors that the curve expects among hits, 5 to 7 come.
`PRIOR_ERROR_RATIO` is what is believed of that ratio before audits have spoken.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random

import numpy as np
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

Row = np.ndarray[tuple[int], np.dtype[np.float64]]
MIN_LABELS = 150
"""No hit before so many labels."""
REFITS = (50, 100, 150)
REFIT_EVERY = 50
MAX_LABELS = 1_200
"""The latest labels only: the more a scope holds, the surer the same similarities are. Chosen on
shuffles that no page reports.
"""
LAPSE_RATE = 0.0045
"""No similarity rules out that a cached answer was wrong: never surer than 1 less this. Chosen, as
`PRIOR_ERROR_RATIO`, like `MAX_LABELS`.
"""
MODERATION = 0.3 * math.pi / 8.0
"""How much doubt moves a probability towards a half: less than in full, which would keep a scope
that is never wrong from serving.
"""
MIN_SPREAD = 1e-3
"""A feature that has not varied says nothing yet."""
BIAS_RIDGE = 1e-3
"""The bias is not held towards 0; this keeps its curvature from vanishing."""
AUDIT_SHARE = 0.015
TIGHTENED_AUDIT_SHARE, TIGHTENED_INSPECTIONS = 0.15, 60
"""After a failed audit so many would-be hits are looked at more closely (tightened inspection, as
in ISO 2859): where one answer has changed, others may have.
"""
WINDOW = 1_000
RETUNE_EVERY = 20
PRIOR_WEIGHT_ERRORS = 8.0
"""Expected errors that the prior weighs as much as."""
PRIOR_ERROR_RATIO, MAX_ERROR_RATIO = 0.7, 4.0
"""Errors over expected ones among hits, before audits have spoken and at least; and at most."""
AUDIT_DECAY = 0.998
"""Weight of an audit after the next one."""
RECENT_AUDITS = 100
BREAK_LEVEL = 0.01
"""The bound counts as broken when the latest audits would be so unlikely under it (Clopper and
Pearson).
"""
OFF = 2.0
"""A threshold that nothing reaches."""


class Calibration:
    """From features to the probability that the voted answer is right: ridge logistic regression on
    standardised features.

    Few labels, and features unlike those of any label, leave the weights in doubt; that doubt
    moderates the probability (MacKay 1992). A lapse rate keeps the sure ones from being surer than
    answers are (as in psychometric functions: Wichmann and Hill 2001).
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[Row, bool]] = deque(maxlen=MAX_LABELS)
        self._centre: Row | None = None
        self._spread = self._weights = np.zeros(0)
        """The weights' last is the bias."""
        self._doubt = np.zeros((0, 0))
        """Covariance of the weights by Laplace's approximation."""
        self.labels = 0

    def learn(self, features: Row, right: bool) -> None:
        """A call has shown whether the voted answer was right."""
        self._rows.append((features, right))
        self.labels += 1
        if self.labels in REFITS or (
            self.labels > REFITS[-1] and (self.labels - REFITS[-1]) % REFIT_EVERY == 0
        ):
            self._fit()

    @property
    def ready(self) -> bool:
        """True once there are labels enough to serve by."""
        return self.labels >= MIN_LABELS and self._centre is not None

    def probability(self, features: Row) -> float:
        """Chance that the voted answer is right, 0 to 1; 0 before the first fit."""
        if self._centre is None:
            return 0.0
        row = np.append((features - self._centre) / self._spread, 1.0)
        score = float(row @ self._weights) / math.sqrt(
            1.0 + MODERATION * float(row @ self._doubt @ row)
        )
        return (1.0 - LAPSE_RATE) / (1.0 + math.exp(-max(min(score, 30.0), -30.0)))

    def _fit(self) -> None:
        rights = np.array([right for _, right in self._rows])
        if rights.all() or not rights.any():
            return
        x = np.array([features for features, _ in self._rows])
        centre, spread = x.mean(axis=0), x.std(axis=0)
        spread[spread < MIN_SPREAD] = 1.0
        x = (x - centre) / spread
        model = LogisticRegression(C=1.0, max_iter=200).fit(x, rights)
        chances = model.predict_proba(x)[:, 1]
        rows = np.column_stack([x, np.ones(len(x))])
        curvature = (rows * (chances * (1.0 - chances))[:, None]).T @ rows
        curvature += np.diag([*[1.0] * x.shape[1], BIAS_RIDGE])
        self._centre, self._spread, self._doubt = centre, spread, np.linalg.inv(curvature)
        self._weights = np.append(model.coef_[0], model.intercept_[0])


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold and what it would have come to in the window."""

    threshold: float
    hit_rate: float
    error_rate: float


class ServingThreshold:
    """The lowest probability that is served, for one bound on the error among hits."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.theta = OFF
        self.audits = 0
        self.audited_right = 0
        self.broken = False
        """True while the latest audits speak against the bound: exact answers only until they do
        not.
        """
        self._tightened = 0
        """Would-be hits that are still to be looked at more closely."""
        self._recent: deque[bool] = deque(maxlen=RECENT_AUDITS)
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._errors = 0.0
        self._expected = 0.0
        self._since = 0

    @property
    def error_ratio(self) -> float:
        """What expected errors are multiplied by: audited over expected ones, held towards the
        prior (the mean of a gamma distribution).
        """
        return min(
            max(
                (self._errors + PRIOR_WEIGHT_ERRORS * PRIOR_ERROR_RATIO)
                / (self._expected + PRIOR_WEIGHT_ERRORS),
                PRIOR_ERROR_RATIO,
            ),
            MAX_ERROR_RATIO,
        )

    def see(self, probability: float) -> None:
        """A would-be candidate came by."""
        self._window.append(probability)
        self._since += 1
        if self._since >= RETUNE_EVERY:
            self._since = 0
            self.theta = self._tuned()

    def _tuned(self) -> float:
        ordered = np.sort(np.fromiter(self._window, np.float64))[::-1]
        errors = self.error_ratio * np.cumsum(1.0 - ordered) / np.arange(1, len(ordered) + 1)
        fitting = np.flatnonzero(errors <= self.bound)
        return float(ordered[fitting[-1]]) if len(fitting) else OFF

    def would_serve(self, probability: float, bound: float | None = None) -> bool:
        """True from the threshold on.

        A caller's tighter bound also wants the single answer to be that sure.
        """
        return probability >= self.theta and (
            bound is None or bound >= self.bound or 1.0 - probability <= bound
        )

    def audit(self, rng: Random) -> bool:
        """Draw whether a would-be hit is called all the same."""
        share = TIGHTENED_AUDIT_SHARE if self._tightened else AUDIT_SHARE
        self._tightened = max(0, self._tightened - 1)
        return rng.random() < share

    def record_audit(self, probability: float, right: bool) -> None:
        """An audit came back."""
        self.audits += 1
        self.audited_right += right
        if not right:
            self._tightened = TIGHTENED_INSPECTIONS
        self._recent.append(right)
        wrong, count = self._recent.count(False), len(self._recent)
        self.broken = (
            wrong > 0 and float(beta.ppf(BREAK_LEVEL, wrong, count - wrong + 1)) > self.bound
        )
        self._errors = self._errors * AUDIT_DECAY + (not right)
        self._expected = self._expected * AUDIT_DECAY + (1.0 - probability)

    def reported(self, probability: float) -> None:
        """A caller says that a hit was wrong: it tightens the threshold, but is no random sample
        and no part of the audited precision.
        """
        self._errors = self._errors * AUDIT_DECAY + 1.0
        self._expected = self._expected * AUDIT_DECAY + (1.0 - probability)

    def precision(self) -> tuple[float, float]:
        """Audited share of right hits and its lower bound."""
        return precision_of(self.audited_right, self.audits)

    def trade_off(self, points: int = 21) -> list[Point]:
        """What other thresholds would have served in the window, from the most careful to the
        boldest.
        """
        if not self._window:
            return []
        ordered = np.sort(np.fromiter(self._window, np.float64))[::-1]
        errors = self.error_ratio * np.cumsum(1.0 - ordered) / np.arange(1, len(ordered) + 1)
        places = np.unique(np.linspace(0, len(ordered) - 1, points).astype(int))
        return [
            Point(float(ordered[at]), (at + 1) / len(ordered), float(min(errors[at], 1.0)))
            for at in places
        ]


def precision_of(right: int, audits: int) -> tuple[float, float]:
    """Share of audits that were right and the lower end of its 95 % interval (Clopper and Pearson,
    one-sided); 0, 0 without audits.
    """
    if audits == 0:
        return 0.0, 0.0
    return right / audits, float(beta.ppf(0.05, right, audits - right + 1)) if right else 0.0
