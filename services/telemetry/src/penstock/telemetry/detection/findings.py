"""The seam of the anomaly detectors: what they are shown and what they find.

No detector here; incidents are `incidents.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.telemetry.window.series_key import SeriesKey
from penstock.telemetry.window.settled import SettledRequest


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's part in a finding; the subject is the metric series or the group of requests
    that shows it.
    """

    feature: str
    share: float
    value: float
    expected: float
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector says at one moment.

    `severity` is minus the decimal logarithm of the chance.
    """

    service: str
    subject: str
    detector: str
    at_unix_s: float
    severity: float
    text: str
    contributions: tuple[Contribution, ...] = ()
    critical_section: str = ""
    trace_ids: tuple[str, ...] = ()


class Detector(Protocol):
    """What a detector must answer.

    Both are called on the event loop and must be quick; fitting belongs in a thread.
    """

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """A metric stream's value, every 15 seconds."""
        ...

    def observe_request(self, seen: SettledRequest) -> Sequence[Finding]:
        """A request that has settled."""
        ...

    def state(self) -> Mapping[str, float]:
        """Numbers for Prometheus, such as the streams watched and the seconds of the last fit."""
        ...
