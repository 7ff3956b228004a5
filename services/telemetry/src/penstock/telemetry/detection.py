"""The seam of the anomaly detectors: what they are shown, what they find, the incidents that findings become. No detector here."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from penstock.telemetry.critical_path import Section, critical_path
from penstock.telemetry.spans import Tree
from penstock.telemetry.window import Summary

MERGE_S = 300.0
"""Findings of one service this close together are one incident."""

CLOSE_S = 120.0
"""An incident is closed when nothing was found for this long."""

MOST_INCIDENTS = 1000
MOST_BLAMES = 10


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """One stream of numbers: a metric of a service with its labels."""

    service: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RequestSeen:
    """A settled request: its row, and its spans to make features and a critical path from."""

    summary: Summary
    tree: Tree

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The critical path."""
        return critical_path(self.tree)


@dataclass(frozen=True, slots=True)
class Blame:
    """One feature's part in a finding."""

    feature: str
    share: float
    value: float
    expected: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector says at one moment. `severity` is minus the decimal logarithm of the chance."""

    service: str
    subject: str
    detector: str
    at_unix_s: float
    severity: float
    text: str
    blames: tuple[Blame, ...] = ()
    critical_section: str = ""
    trace_ids: tuple[str, ...] = ()


class Detector(Protocol):
    """What a detector must answer. Both are called on the event loop and must be quick; fitting belongs in a thread."""

    def on_point(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """A metric stream's value, every 15 seconds."""
        ...

    def on_request(self, seen: RequestSeen) -> Sequence[Finding]:
        """A request that has settled."""
        ...

    def state(self) -> Mapping[str, float]:
        """Numbers for Prometheus, such as the streams watched and the seconds of the last fit."""
        ...


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


@dataclass
class IncidentBook:
    """All incidents, and those who watch them."""

    _incidents: OrderedDict[str, Incident] = field(default_factory=OrderedDict)
    _watchers: set[asyncio.Queue[Incident]] = field(default_factory=set)
    _count: int = 0

    def take(self, finding: Finding) -> Incident:
        """Merge a finding into its service's incident, or open one."""
        near = [
            incident
            for incident in self._incidents.values()
            if incident.service == finding.service and finding.at_unix_s - incident.last_unix_s <= MERGE_S
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
            blames=finding.blames,
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
        for watcher in self._watchers:
            if not watcher.full():
                watcher.put_nowait(incident)

    def all(self) -> list[Incident]:
        """Newest first."""
        return sorted(self._incidents.values(), key=lambda incident: -incident.opened_unix_s)

    async def watch(self) -> AsyncIterator[Incident]:
        """Incidents as they open and change; a watcher that does not keep up misses some."""
        queue: asyncio.Queue[Incident] = asyncio.Queue(100)
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)


def _both(first: Sequence[Blame], second: Sequence[Blame]) -> tuple[Blame, ...]:
    """The blames of two findings, the worse one's first, so that whatever joins an incident is named in it; each feature once."""
    known = {blame.feature for blame in first}
    return (*first, *(blame for blame in second if blame.feature not in known))[:MOST_BLAMES]


def _merged(incident: Incident, finding: Finding) -> Incident:
    worse = finding.severity > incident.severity
    return replace(
        incident,
        open=True,
        last_unix_s=max(incident.last_unix_s, finding.at_unix_s),
        severity=max(incident.severity, finding.severity),
        text=finding.text if worse else incident.text,
        blames=_both(finding.blames, incident.blames) if worse else _both(incident.blames, finding.blames),
        critical_section=incident.critical_section or finding.critical_section,
        trace_ids=tuple(dict.fromkeys((*incident.trace_ids, *finding.trace_ids)))[:20],
        alerts=incident.alerts + 1,
    )
