"""What a detector is given and what it reports.

Incidents are made of findings in `incidents.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.trace_summary import SettledRequest


@dataclass(frozen=True, slots=True)
class Contribution:
    """One feature's part in a finding."""

    feature: str
    share: float
    """Its share of the distance from what was expected, 0 to 1."""
    value: float
    expected: float
    subject: str = ""
    """The metric series or request group that shows it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector reports at one moment: something that is not as it was."""

    service: str
    subject: str
    """The metric series or request group that shows it."""
    detector: str
    """`metric`, `requests` or `drift`."""
    at_unix_s: float
    severity: float
    """Minus the decimal logarithm of the probability that it is chance."""
    text: str
    """In one sentence, for a person."""
    contributions: tuple[Contribution, ...] = ()
    """The largest share first."""
    critical_section: str = ""
    """`service operation` where the time goes; empty when not known."""
    trace_ids: tuple[str, ...] = ()


class Detector(Protocol):
    """A detector of anomalies.

    It is called on the event loop, so each call must be quick: slow work belongs in a thread.
    """

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Take a metric's value, one every 15 seconds."""
        ...

    def observe_request(self, request: SettledRequest) -> Sequence[Finding]:
        """Take a request that has settled."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """Metrics of the detector itself, by name."""
        ...
