"""Incidents: what findings become.

Findings of one service within minutes are one, in which each subject is named. No detector here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from penstock.telemetry.detection.findings import Blame, Finding
from penstock.telemetry.subscribers import Followers

MERGE_S = 300.0
"""Findings of one service this close together are one incident."""

CLOSE_S = 120.0
"""An incident is closed when nothing was found for this long."""

MOST_INCIDENTS = 1000
MOST_BLAMES = 10


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
    blames: tuple[Blame, ...] = ()
    critical_section: str = ""
    trace_ids: tuple[str, ...] = ()
    alerts: int = 1
    grew: bool = False
    """Whether the last finding brought a subject that was not blamed before: something more went
    wrong.
    """


@dataclass
class IncidentBook:
    """All incidents, and those who watch them."""

    _incidents: OrderedDict[str, Incident] = field(default_factory=OrderedDict)
    _watchers: Followers[Incident] = field(default_factory=lambda: Followers(100))
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
            blames=_named(finding),
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
        while len(self._incidents) > MOST_INCIDENTS:
            self._incidents.popitem(last=False)
        self._watchers.tell(incident)

    def all(self) -> list[Incident]:
        """Newest first."""
        return sorted(self._incidents.values(), key=lambda incident: -incident.opened_unix_s)

    def watch(self) -> AsyncIterator[Incident]:
        """Incidents as they open and change; a watcher that does not keep up misses some."""
        return self._watchers.follow()


def _named(finding: Finding) -> tuple[Blame, ...]:
    return tuple(
        replace(blame, subject=blame.subject or finding.subject) for blame in finding.blames
    )


def _both(first: Sequence[Blame], second: Sequence[Blame]) -> tuple[Blame, ...]:
    """The blames of two findings, the worse one's first, so that whatever joins an incident is
    named in it; each once.

    Where there are too many, every subject keeps its first.
    """
    every = {(blame.subject, blame.feature): blame for blame in reversed((*first, *second))}
    ordered = [
        every[key]
        for key in dict.fromkeys((blame.subject, blame.feature) for blame in (*first, *second))
    ]
    if len(ordered) <= MOST_BLAMES:
        return tuple(ordered)
    heads = {blame.subject: blame for blame in reversed(ordered)}
    rest = [blame for blame in ordered if heads[blame.subject] is not blame]
    return tuple(
        [*(blame for blame in ordered if heads[blame.subject] is blame), *rest][:MOST_BLAMES]
    )


def _merged(incident: Incident, finding: Finding) -> Incident:
    worse = finding.severity > incident.severity
    blames = _named(finding)
    known = {blame.subject for blame in incident.blames}
    return replace(
        incident,
        open=True,
        last_unix_s=max(incident.last_unix_s, finding.at_unix_s),
        severity=max(incident.severity, finding.severity),
        text=finding.text if worse else incident.text,
        blames=_both(blames, incident.blames) if worse else _both(incident.blames, blames),
        critical_section=incident.critical_section or finding.critical_section,
        trace_ids=tuple(dict.fromkeys((*incident.trace_ids, *finding.trace_ids)))[:20],
        alerts=incident.alerts + 1,
        grew=any(blame.subject not in known for blame in blames),
    )
