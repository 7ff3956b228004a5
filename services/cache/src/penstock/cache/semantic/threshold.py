"""Which answers are sure enough to be served? A threshold on their probability of being right that
keeps the configured bound on wrong answers among hits.

`ServingThreshold` takes the lowest threshold with which two things hold. Among the answers that it
would serve, the expected share of errors is within the bound. And among all hits of the scope so
far, together with those that as many further requests as it remembers would bring, there are with
confidence no more errors than the bound allows (`error_ratio`). A young scope has few hits, whose
errors chance decides, so it serves only what is surest; the margin shrinks as hits accumulate
(docs/decisions/0154-a-bound-held-with-confidence.md).

Audits, would-be hits that are called all the same, correct what is expected. The state comes from
the learning log, except for the latest hits, which the next event of the log carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import numpy as np
from penstock.cache.semantic.error_ratio import CONFIDENCE, ErrorRatio, Row
from penstock.service.purity import pure

AUDIT_SHARE = 0.015
"""Share of would-be hits that are audited."""
TIGHTENED_AUDIT_SHARE = 0.15
TIGHTENED_INSPECTIONS = 60
"""After a failed audit this many would-be hits are audited at the higher share (tightened
inspection, as in ISO 2859), since other answers may have changed as well.
"""
WINDOW = 1_000
"""Latest candidates, called or served, from whose probabilities the threshold is chosen."""
TUNE_EVERY = 20
"""Candidates between two choices of the threshold."""
RECENT_AUDITS = 100
BREAK_LEVEL = 0.01
"""The bound counts as broken when the latest audits would be this improbable under it (Clopper and
Pearson 1934).
"""
UNREACHABLE = 2.0
"""A threshold that no probability reaches."""


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
        self.error_ratio = ErrorRatio()
        self.audit_count = 0
        self.right_audit_count = 0
        self.is_broken = False
        self._tightened_left = 0
        """Would-be hits that are still to be audited at the higher share."""
        self._recent_audits: deque[bool] = deque(maxlen=RECENT_AUDITS)
        self._probabilities: deque[float] = deque(maxlen=WINDOW)
        self._logged_hits = 0
        self._expected_errors = 0.0
        """Among these hits, by the calibration of their time."""
        self._unlogged: deque[float] = deque(maxlen=WINDOW)
        """Probabilities of hits that no event of the log has carried yet."""
        self._since_tuned = 0

    @property
    def hits(self) -> int:
        """The number of answers served so far, as far as it is known here."""
        return self._logged_hits + len(self._unlogged)

    def observe(self, probability: float) -> None:
        """Note the probability of a candidate that passed the gate and was called."""
        self._probabilities.append(probability)
        self._count_candidates(1)

    def record_hit(self, probability: float) -> None:
        """Note that an answer was served here, which no event of the log says yet."""
        self._unlogged.append(probability)
        self._count_candidates(1)

    def withdraw_hit(self, probability: float) -> None:
        """Take back a hit whose answer could not be served after all."""
        if probability in self._unlogged:
            self._unlogged.remove(probability)

    def take_hits(self) -> tuple[float, ...]:
        """The probabilities of hits that no event of the log says yet; they are the caller's to
        log, and not counted here until `observe_hits` is told of them.
        """
        taken = tuple(self._unlogged)
        self._unlogged.clear()
        return taken

    def observe_hits(self, probabilities: Sequence[float]) -> None:
        """Note hits of which an event of the log says that some replica has served them."""
        self._probabilities.extend(probabilities)
        self._logged_hits += len(probabilities)
        self._expected_errors += sum(1.0 - probability for probability in probabilities)
        self._count_candidates(len(probabilities))

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
        self.error_ratio.record(probability, is_wrong=not is_right)

    def record_complaint(self, probability: float) -> None:
        """Note that a caller reported a hit as wrong.

        This raises the threshold. It is not a random sample, so the audited precision leaves it
        out.
        """
        self.error_ratio.record(probability, is_wrong=True)

    def trade_off(self, points: int = 21) -> list[TradeOffPoint]:
        """What other thresholds would have served in the window, the highest threshold first."""
        errors = self._window_errors()
        if not len(errors):
            return []
        shares = self.error_ratio.mean * np.cumsum(errors) / np.arange(1, len(errors) + 1)
        places = np.unique(np.linspace(0, len(errors) - 1, points).astype(int))
        return [
            TradeOffPoint(
                float(1.0 - errors[place]),
                (place + 1) / len(errors),
                float(min(shares[place], 1.0)),
            )
            for place in places
        ]

    def _count_candidates(self, count: int) -> None:
        self._since_tuned += count
        if self._since_tuned >= TUNE_EVERY:
            self._since_tuned = 0
            self.value = self._tuned()

    def _tuned(self) -> float:
        """The lowest threshold that keeps the bound, were the window to come once more."""
        errors = self._window_errors()
        counts = np.arange(1, len(errors) + 1)
        sums = np.cumsum(errors)
        is_within = self.error_ratio.mean * sums <= self.bound * counts
        served = 1.0 - np.fromiter(self._unlogged, np.float64)
        confidence = self.error_ratio.confidence(
            self._expected_errors + float(served.sum()) + sums,
            np.asarray(self.bound * (self.hits + counts), np.float64),
        )
        chosen = np.flatnonzero(is_within & (confidence >= CONFIDENCE))
        return float(1.0 - errors[chosen[-1]]) if len(chosen) else UNREACHABLE

    def _window_errors(self) -> Row:
        """Probabilities of the window's candidates to be wrong, the smallest first."""
        latest = chain(self._probabilities, self._unlogged)
        return np.sort(1.0 - np.fromiter(latest, np.float64))

    def _is_bound_broken(self) -> bool:
        audits = len(self._recent_audits)
        wrong = self._recent_audits.count(False)
        if wrong == 0:
            return False
        return _beta_quantile(BREAK_LEVEL, wrong, audits - wrong + 1) > self.bound


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
