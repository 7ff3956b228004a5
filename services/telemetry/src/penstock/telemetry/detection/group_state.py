"""What the request detector remembers of one group of requests: its baseline, which is where its
feature vectors usually lie, a sample that the baseline is learned from, and its alerts.

The baseline is a robust centre and covariance, Rousseeuw's minimum covariance determinant, which
outliers in the sample do not move. How far a request is from the centre is its squared Mahalanobis
distance. How rare such a distance is follows from the distances of the sample itself, as a
conformal p-value, so that nothing is assumed about their distribution.

`fit_baseline` takes tens of milliseconds and belongs in a thread.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.telemetry.detection.request_features import (
    FEATURES,
    MIN_DIFFERENCES,
    WORSE_DIRECTIONS,
    FeatureValues,
)

SEED = 20260
SUPPORT_FRACTION = 0.75
"""Share of the sample that determines centre and covariance; the rest may be outliers."""
SAMPLE_SIZE = 500
"""Requests that a baseline is learned from. With more, scikit-learn splits the sample in parts and
the fit takes ten times as long.
"""

MIN_SAMPLE_GAP_S = 0.25
MAX_SAMPLE_GAP_S = 4.0
"""A sample takes one request in this time at most. It begins with the short gap, to be full soon,
and ends with the long one, so that it spans half an hour however busy the group is, quiet minutes
and busy ones.
"""

LEVEL_RAISE = 0.5
ALERT_HALF_LIFE_S = 7200.0
"""Each alert of a group raises its alert level; it counts for half after this time."""

MAX_TRACE_IDS = 5


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where the feature vectors of a group usually lie."""

    centre: FeatureValues
    precision: tuple[FeatureValues, ...]
    """The inverse of the covariance matrix, by row."""
    distances: tuple[float, ...]
    """The squared distances of the sample, ascending."""

    def distance_parts(self, values: FeatureValues) -> FeatureValues:
        """Each feature's part of the squared distance from the centre; their sum is the distance.

        A feature counts only where it is worse than the centre.
        """
        deviations = [
            max(0.0, (value - centre) * worse) * worse
            for value, centre, worse in zip(values, self.centre, WORSE_DIRECTIONS, strict=True)
        ]
        return tuple(
            deviation * sum(p * other for p, other in zip(row, deviations, strict=True))
            for deviation, row in zip(deviations, self.precision, strict=True)
        )

    def surprisal(self, distance: float) -> float:
        """Minus the natural logarithm of the conformal p-value of a squared distance."""
        count = len(self.distances)
        at_least_as_far = count - bisect_left(self.distances, distance)
        return -math.log((at_least_as_far + 1.0) / (count + 1.0))


def fit_baseline(sample: Sequence[FeatureValues]) -> Baseline:
    """Learn a baseline from feature vectors.

    Noise of the size of MIN_DIFFERENCES is added, so that a feature that never moved has a spread.
    """
    # numpy and scikit-learn take a second to import, which is paid in the fitting thread.
    import numpy as np
    from sklearn.covariance import MinCovDet

    rows = np.asarray(sample, dtype=float)
    noise = np.random.default_rng(SEED).normal(size=rows.shape) * np.asarray(MIN_DIFFERENCES)
    with warnings.catch_warnings():
        # It warns of determinants that rise by rounding; the p-values make up for that.
        warnings.simplefilter("ignore")
        estimate = MinCovDet(support_fraction=SUPPORT_FRACTION, random_state=SEED).fit(rows + noise)
    precision = np.linalg.inv(estimate.covariance_ + np.diag(np.square(MIN_DIFFERENCES)))
    baseline = Baseline(
        tuple(float(value) for value in estimate.location_),
        tuple(tuple(float(value) for value in row) for row in precision),
        (),
    )
    distances = sorted(sum(baseline.distance_parts(tuple(row))) for row in rows.tolist())
    return Baseline(baseline.centre, baseline.precision, tuple(distances))


@dataclass(slots=True)
class RequestSample:
    """Recent requests, evenly spaced in time.

    When it is full, every second request is dropped and the gap doubles, up to MAX_SAMPLE_GAP_S.
    """

    values: deque[FeatureValues] = field(default_factory=lambda: deque(maxlen=SAMPLE_SIZE))
    mean_log_slowdown: float = 0.0
    """Of these requests, by CPU pressure."""
    new_since_fit: int = 0
    gap_s: float = MIN_SAMPLE_GAP_S
    last_added_s: float = -math.inf

    def offer(self, values: FeatureValues, log_slowdown: float, now_s: float) -> None:
        """Add a request unless the last one was added too recently."""
        if now_s - self.last_added_s < self.gap_s:
            return
        if len(self.values) == SAMPLE_SIZE and self.gap_s < MAX_SAMPLE_GAP_S:
            self.values = deque(list(self.values)[::2], maxlen=SAMPLE_SIZE)
            self.gap_s *= 2.0
        self.last_added_s = now_s
        self.values.append(values)
        self.new_since_fit += 1
        self.mean_log_slowdown += (log_slowdown - self.mean_log_slowdown) / len(self.values)


@dataclass(slots=True)
class CusumState:
    """A cumulative sum that never falls below zero (CUSUM, Page 1954), and what made it rise.

    It begins when it leaves zero; everything else is of the time since then.
    """

    level: float = 0.0
    """In nats."""
    began_s: float = 0.0
    alerted_s: float = -math.inf
    """The last alert."""
    requests: int = 0
    failures: int = 0
    part_sums: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    """By feature: parts of the distance from the baseline, added up."""
    value_sums: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    """By feature: values, added up."""
    trace_ids: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_TRACE_IDS))

    def add(self, amount: float, now_s: float, max_level: float) -> bool:
        """Add to the sum; returns whether it is above zero."""
        if self.level == 0.0 and amount > 0.0:
            self._begin(now_s)
        self.level = min(max_level, max(0.0, self.level + amount))
        self.requests += self.level > 0.0
        return self.level > 0.0

    def _begin(self, now_s: float) -> None:
        self.began_s = now_s
        self.alerted_s = -math.inf
        self.requests = 0
        self.failures = 0
        self.part_sums = [0.0] * len(FEATURES)
        self.value_sums = [0.0] * len(FEATURES)
        self.trace_ids.clear()

    def add_values(self, parts: FeatureValues, values: FeatureValues) -> None:
        """Add a request's parts of the distance and its values."""
        for index, (part, value) in enumerate(zip(parts, values, strict=True)):
            self.part_sums[index] += max(0.0, part)
            self.value_sums[index] += value


@dataclass(slots=True)
class GroupState:
    """Everything that is remembered of one group."""

    sample: RequestSample = field(default_factory=RequestSample)
    baseline: Baseline | None = None
    """None until it was fitted for the first time."""
    distance_cusum: CusumState = field(default_factory=CusumState)
    error_cusum: CusumState = field(default_factory=CusumState)
    requests: int = 0
    error_rate: float = 0.0
    """The usual share of failures."""
    alerts: float = 0.0
    """Alerts so far, as they counted at `alerts_s`."""
    alerts_s: float = 0.0

    def count_error(self, failed: bool) -> None:
        """Let the usual error rate follow one more request."""
        weight = max(0.001, 1.0 / (self.requests + 10))
        self.error_rate += (failed - self.error_rate) * weight

    def alert_level(self, level: float, now_s: float) -> float:
        """A level raised for the alerts that this group had."""
        if not self.alerts:
            return level
        return level * (1.0 + LEVEL_RAISE * math.log2(1.0 + self._alerts_at(now_s)))

    def count_alert(self, now_s: float) -> None:
        """Count an alert, which raises the level for a time."""
        self.alerts = self._alerts_at(now_s) + 1.0
        self.alerts_s = now_s

    def restarted(self, now_s: float) -> GroupState:
        """A state that learns anew and keeps only alerts and error rate."""
        return GroupState(alerts=self._alerts_at(now_s), alerts_s=now_s, error_rate=self.error_rate)

    def _alerts_at(self, now_s: float) -> float:
        half_lives = max(0.0, now_s - self.alerts_s) / ALERT_HALF_LIFE_S
        return self.alerts * math.pow(0.5, half_lives)
