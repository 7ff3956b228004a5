"""Incidents: what findings become.

Findings of one service within minutes are one, in which each subject is named. No detector here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from penstock.service.subscribers import Subscribers, Subscription
from penstock.telemetry.detection.findings import Contribution, Finding

MERGE_S = 300.0
"""Findings of one service this close together are one incident."""

CLOSE_S = 120.0
"""An incident is closed when nothing was found for this long."""

MAX_INCIDENTS = 1000
MAX_CONTRIBUTIONS = 10


@dataclass(frozen=True, slots=True)
class Incident:
    """Findings of one service merged; frozen, so that a watcher's copy does not change under it."""

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
    critical_section: str = ""
    trace_ids: tuple[str, ...] = ()
    alerts: int = 1
    grew: bool = False
    """Whether the last finding brought a subject that was not blamed before: something more went
    wrong.
    """


@dataclass
class IncidentTracker:
    """All incidents, and those who watch them."""

    _incidents: OrderedDict[str, Incident] = field(default_factory=OrderedDict)
    _subscribers: Subscribers[Incident] = field(default_factory=lambda: Subscribers(100))
    _count: int = 0

    def take(self, finding: Finding) -> Incident:
        """Merge a finding into its service's incident, or open one."""
        near = [
            incident
            for incident in self._incidents.values()
            if incident.service == finding.service
            and finding.at_unix_s - incident.last_unix_s <= MERGE_S
        ]
        incident = _merged(near[-1], finding) if near else self._opened(finding)
        self._put(incident)
        return incident

    def _opened(self, finding: Finding) -> Incident:
        self._count += 1
        return Incident(
            f"inc-{int(finding.at_unix_s):x}-{self._count}",
            finding.service,
            finding.subject,
            finding.detector,
            finding.at_unix_s,
            finding.at_unix_s,
            finding.severity,
            finding.text,
            contributions=_named(finding),
            critical_section=finding.critical_section,
            trace_ids=finding.trace_ids,
        )

    def close_quiet(self, unix_s: float) -> list[Incident]:
        """Close incidents of which nothing more was found; gives those closed now."""
        quiet = [
            replace(incident, open=False)
            for incident in self._incidents.values()
            if incident.open and unix_s - incident.last_unix_s > CLOSE_S
        ]
        for incident in quiet:
            self._put(incident)
        return quiet

    def _put(self, incident: Incident) -> None:
        self._incidents[incident.id] = incident
        while len(self._incidents) > MAX_INCIDENTS:
            self._incidents.popitem(last=False)
        self._subscribers.publish(incident)

    def all(self) -> list[Incident]:
        """Newest first."""
        return sorted(self._incidents.values(), key=lambda incident: -incident.opened_unix_s)

    def subscribe(
        self, accepts: Callable[[Incident], bool]
    ) -> AbstractContextManager[Subscription[Incident]]:
        """Incidents as they open and change; a watcher that does not keep up misses some."""
        return self._subscribers.subscribe(accepts)


def _named(finding: Finding) -> tuple[Contribution, ...]:
    return tuple(
        replace(contribution, subject=contribution.subject or finding.subject)
        for contribution in finding.contributions
    )


def _both(
    first: Sequence[Contribution], second: Sequence[Contribution]
) -> tuple[Contribution, ...]:
    """The blames of two findings, the worse one's first, so that whatever joins an incident is
    named in it; each once.

    Where there are too many, every subject keeps its first.
    """
    every = {
        (contribution.subject, contribution.feature): contribution
        for contribution in reversed((*first, *second))
    }
    ordered = [
        every[key]
        for key in dict.fromkeys(
            (contribution.subject, contribution.feature) for contribution in (*first, *second)
        )
    ]
    if len(ordered) <= MAX_CONTRIBUTIONS:
        return tuple(ordered)
    heads = {contribution.subject: contribution for contribution in reversed(ordered)}
    rest = [
        contribution for contribution in ordered if heads[contribution.subject] is not contribution
    ]
    return tuple(
        [
            *(
                contribution
                for contribution in ordered
                if heads[contribution.subject] is contribution
            ),
            *rest,
        ][:MAX_CONTRIBUTIONS]
    )


def _merged(incident: Incident, finding: Finding) -> Incident:
    worse = finding.severity > incident.severity
    contributions = _named(finding)
    known = {contribution.subject for contribution in incident.contributions}
    return replace(
        incident,
        open=True,
        last_unix_s=max(incident.last_unix_s, finding.at_unix_s),
        severity=max(incident.severity, finding.severity),
        text=finding.text if worse else incident.text,
        contributions=_both(contributions, incident.contributions)
        if worse
        else _both(incident.contributions, contributions),
        critical_section=incident.critical_section or finding.critical_section,
        trace_ids=tuple(dict.fromkeys((*incident.trace_ids, *finding.trace_ids)))[:20],
        alerts=incident.alerts + 1,
        grew=any(contribution.subject not in known for contribution in contributions),
    )
