"""What is held of a group of like requests: the sample it is learnt from, its sums, its earlier
alerts. Nothing is found here.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from penstock.telemetry.detection.baseline import Baseline
from penstock.telemetry.detection.request_features import FEATURES, FeatureValues

SAMPLE_SIZE = 500
"""Requests that a group is learnt from. One more and the fit takes ten times as long: scikit-learn
then splits the sample in parts.
"""

MIN_SAMPLE_GAP_S = 0.25
MAX_SAMPLE_GAP_S = 4.0
"""A sample takes at most one request in this time: the first to be there soon, the second so that
it spans half an hour however busy the group is, and what is usual holds the quiet minutes and the
loaded ones.
"""

RAISE = 0.5
CALM_S = 7200.0
"""Half-life of a group's alerts, each of which raises the group's own level."""


@dataclass(slots=True)
class RequestSample:
    """Requests of the recent past, evenly spread; when it is full every second one goes and the
    next come half as often.
    """

    values: deque[FeatureValues] = field(default_factory=lambda: deque(maxlen=SAMPLE_SIZE))
    waited: float = 0.0
    """Mean logarithm of the factor by which these took longer because the host was short of
    processors.
    """

    fresh: int = 0
    gap_s: float = MIN_SAMPLE_GAP_S
    taken_s: float = -math.inf

    def take(self, values: FeatureValues, waited: float, now_s: float) -> None:
        """Take a request if it is time for one."""
        if now_s - self.taken_s < self.gap_s:
            return
        if len(self.values) == SAMPLE_SIZE and self.gap_s < MAX_SAMPLE_GAP_S:
            self.values = deque(list(self.values)[::2], maxlen=SAMPLE_SIZE)
            self.gap_s *= 2.0
        self.taken_s = now_s
        self.values.append(values)
        self.fresh += 1
        self.waited += (waited - self.waited) / len(self.values)


@dataclass(slots=True)
class CusumState:
    """A sum above zero: since when, and what went into it."""

    level: float = 0.0
    began_s: float = 0.0
    told_s: float = -math.inf
    requests: int = 0
    distance_parts: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    values: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    traces: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    def add(self, amount: float, now_s: float, most: float) -> bool:
        """Add to the sum; False when it is back at zero."""
        if self.level == 0.0 and amount > 0.0:
            self._begin(now_s)
        self.level = min(most, max(0.0, self.level + amount))
        self.requests += self.level > 0.0
        return self.level > 0.0

    def _begin(self, now_s: float) -> None:
        self.began_s, self.told_s, self.requests = now_s, -math.inf, 0
        self.distance_parts = [0.0] * len(FEATURES)
        self.values = [0.0] * len(FEATURES)
        self.traces.clear()


@dataclass(slots=True)
class GroupState:
    """What is held of a group."""

    sample: RequestSample = field(default_factory=RequestSample)
    usual: Baseline | None = None
    slow: CusumState = field(default_factory=CusumState)
    failing: CusumState = field(default_factory=CusumState)
    requests: int = 0
    error_rate: float = 0.0
    alerts: float = 0.0
    alerts_s: float = 0.0

    def raised(self, level: float, now_s: float) -> float:
        """The level with what earlier alerts add to it."""
        self.alerts *= 0.5 ** (max(0.0, now_s - self.alerts_s) / CALM_S)
        self.alerts_s = now_s
        return level * (1.0 + RAISE * math.log2(1.0 + self.alerts))
