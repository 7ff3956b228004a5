"""What the request detector remembers of one group of requests."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from penstock.telemetry.detection.baseline import Baseline
from penstock.telemetry.detection.request_features import FEATURES, FeatureValues

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
