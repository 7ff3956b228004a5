"""What a detector is given and reports, and the incidents that findings make: those of one service
within minutes of each other, merged.

An incident opens with its first finding, grows when a finding brings a new subject, and closes when
nothing more is found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from penstock.service.subscribers import Subscribers, Subscription
from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.settled_traces import SettledRequest

MERGE_WITHIN_S = 300.0
"""A finding this close to its service's last one belongs to the same incident."""

CLOSE_AFTER_S = 120.0
"""An incident closes when nothing more was found for so long."""

MAX_INCIDENTS = 1000
MAX_CONTRIBUTIONS = 10
MAX_TRACE_IDS = 20
MAX_QUEUED_UPDATES = 100
"""Updates that may wait for one subscriber."""


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
    """`metric`, `requests`, `drift`, `operator` or `prefixes`."""
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


@dataclass(frozen=True, slots=True)
class Incident:
    """Merged findings of one service, as they stand at one moment.

    Fields that a finding has too are those of the worst finding.
    """

    id: str
    service: str
    subject: str
    detector: str
    opened_unix_s: float
    last_unix_s: float
    severity: float
    text: str
    open: bool = True
    contributions: tuple[Contribution, ...] = ()
    """Of all findings, the worst finding's first."""
    critical_section: str = ""
    trace_ids: tuple[str, ...] = ()
    alerts: int = 1
    """Findings merged."""
    has_new_subject: bool = False
    """Whether the last finding brought a subject that no earlier one had: something more went
    wrong.
    """


class IncidentTracker:
    """All incidents, and everybody who receives their updates.

    Args:
        listeners: called with each incident as it opens, changes and closes; they must not block.
    """

    def __init__(self, listeners: Sequence[Callable[[Incident], None]] = ()) -> None:
        self._listeners = listeners
        self._incidents: OrderedDict[str, Incident] = OrderedDict()
        self._subscribers = Subscribers[Incident](MAX_QUEUED_UPDATES)
        self._opened = 0

    def report(self, finding: Finding) -> Incident:
        """Merge a finding into its service's incident, or open one; returns the incident."""
        recent = [
            incident
            for incident in self._incidents.values()
            if incident.service == finding.service
            and finding.at_unix_s - incident.last_unix_s <= MERGE_WITHIN_S
        ]
        incident = merge(recent[-1], finding) if recent else self._open(finding)
        self._publish(incident)
        return incident

    def close_quiet(self, unix_s: float) -> list[Incident]:
        """Close incidents of which nothing more was found; returns those closed now."""
        quiet = [
            replace(incident, open=False)
            for incident in self._incidents.values()
            if incident.open and unix_s - incident.last_unix_s > CLOSE_AFTER_S
        ]
        for incident in quiet:
            self._publish(incident)
        return quiet

    def newest_first(self) -> list[Incident]:
        """All incidents, open and closed."""
        return sorted(self._incidents.values(), key=lambda incident: -incident.opened_unix_s)

    @property
    def open_count(self) -> int:
        """The number of open incidents."""
        return sum(incident.open for incident in self._incidents.values())

    def subscribe(
        self, accepts: Callable[[Incident], bool]
    ) -> AbstractContextManager[Subscription[Incident]]:
        """Receive incidents as they open, change and close, those that `accepts` is true for."""
        return self._subscribers.subscribe(accepts)

    def _open(self, finding: Finding) -> Incident:
        self._opened += 1
        return Incident(
            f"inc-{int(finding.at_unix_s):x}-{self._opened}",
            finding.service,
            finding.subject,
            finding.detector,
            opened_unix_s=finding.at_unix_s,
            last_unix_s=finding.at_unix_s,
            severity=finding.severity,
            text=finding.text,
            contributions=_with_subject(finding),
            critical_section=finding.critical_section,
            trace_ids=finding.trace_ids,
        )

    def _publish(self, incident: Incident) -> None:
        self._incidents[incident.id] = incident
        while len(self._incidents) > MAX_INCIDENTS:
            self._incidents.popitem(last=False)
        self._subscribers.publish(incident)
        for listener in self._listeners:
            listener(incident)


def merge(incident: Incident, finding: Finding) -> Incident:
    """The incident with one more finding."""
    contributions = _with_subject(finding)
    known = {part.subject for part in incident.contributions}
    if finding.severity > incident.severity:
        text = finding.text
        merged = _merge_contributions(contributions, incident.contributions)
    else:
        text = incident.text
        merged = _merge_contributions(incident.contributions, contributions)
    return replace(
        incident,
        open=True,
        last_unix_s=max(incident.last_unix_s, finding.at_unix_s),
        severity=max(incident.severity, finding.severity),
        text=text,
        contributions=merged,
        critical_section=incident.critical_section or finding.critical_section,
        trace_ids=tuple(dict.fromkeys((*incident.trace_ids, *finding.trace_ids)))[:MAX_TRACE_IDS],
        alerts=incident.alerts + 1,
        has_new_subject=any(part.subject not in known for part in contributions),
    )


def _with_subject(finding: Finding) -> tuple[Contribution, ...]:
    """The finding's contributions, each with its subject."""
    return tuple(
        replace(part, subject=part.subject or finding.subject) for part in finding.contributions
    )


def _merge_contributions(
    worse: Sequence[Contribution], other: Sequence[Contribution]
) -> tuple[Contribution, ...]:
    """The contributions of two findings, the worse one's first, each (subject, feature) once.

    Where there are too many, the first of every subject comes before all others, so that every
    subject of the incident is named.
    """
    unique: dict[tuple[str, str], Contribution] = {}
    for part in (*worse, *other):
        unique.setdefault((part.subject, part.feature), part)
    ordered = list(unique.values())
    if len(ordered) <= MAX_CONTRIBUTIONS:
        return tuple(ordered)
    first_of_subject: dict[str, Contribution] = {}
    for part in ordered:
        first_of_subject.setdefault(part.subject, part)
    rest = [part for part in ordered if first_of_subject[part.subject] is not part]
    return tuple([*first_of_subject.values(), *rest][:MAX_CONTRIBUTIONS])
