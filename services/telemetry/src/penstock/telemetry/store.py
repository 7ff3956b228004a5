"""Everything telemetry holds, and the one place where it changes: windows, ledger, incidents,
counts, and the round that settles traces.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.otel import attributes as names
from penstock.otel.metrics import ACCOUNTS_SCOPE
from penstock.service.clock import Clock
from penstock.service.subscribers import Subscribers, Subscription
from penstock.telemetry.detection.downsampling import Downsampler
from penstock.telemetry.detection.findings import Detector, Finding
from penstock.telemetry.detection.incidents import Incident, IncidentTracker
from penstock.telemetry.detection.quality import QualityMonitor
from penstock.telemetry.ledger.ledger import Ledger
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.spans.spans import Source
from penstock.telemetry.window.analysis import TraceAnalysis
from penstock.telemetry.window.series import Point, Series, SeriesWindow
from penstock.telemetry.window.series_key import SeriesKey
from penstock.telemetry.window.settled import SettledRequest
from penstock.telemetry.window.traces import TraceSummary, TraceWindow

ROUND_S = 0.25
STATE_EVERY_S = 5.0
MAX_TENANTS_IN_METRICS = 50
"""Tenants whose money is shown as metrics; the ledger itself answers for all."""

SETTLED_A_ROUND = 400
"""Traces settled before others get their turn."""


def _forward_nowhere(kind: str, payload: bytes) -> None:
    """What is taken in goes no further."""


@dataclass
class Counts:
    """What came in."""

    spans: int = 0
    rejected_spans: int = 0
    log_records: int = 0
    refused_exports: int = 0


class TelemetryStore:
    """The state of the service. Owner: the service's main, which runs `run` and cancels it."""

    def __init__(
        self,
        clock: Clock,
        max_bytes: int,
        *,
        content_tenants: tuple[str, ...] = (),
        detectors: Sequence[Detector] = (),
        on_incident: Sequence[Callable[[Incident], None]] = (),
        forward: Callable[[str, bytes], None] | None = None,
        seed: int = 0,
    ) -> None:
        self.clock = clock
        self.window = TraceWindow(max_bytes)
        self.series = SeriesWindow()
        self.ledger = Ledger()
        self.incidents = IncidentTracker()
        self.quality = QualityMonitor()
        self.counts = Counts()
        self.content = ContentPolicy(content_tenants)
        self.analysis = TraceAnalysis(self.window, random.Random(seed), self._show_request)
        self.detectors = detectors
        self.forward = forward or _forward_nowhere
        """Takes each export as it came in, with its kind."""
        self._on_incident = on_incident
        self._sampler = Downsampler()
        self._where: dict[str, str] = {}
        self._state_written_s = 0.0
        self._subscribers = Subscribers[TraceSummary](1000)

    def ingest_metrics(self, source: Source, scopes: Iterable[metrics_pb2.ScopeMetrics]) -> None:
        """Take metrics of one sender; increments of accounts go to the ledger and no series keeps
        them.
        """
        for scope in scopes:
            if scope.scope.name == ACCOUNTS_SCOPE.name:
                self.ledger.take(f"{source.service}/{source.instance}", scope, self.clock.time())
                continue
            for metric in scope.metrics:
                for series, point in self.series.take(source.service, source.instance, metric):
                    self._show_point(series, point)

    def record_host_metric(self, key: SeriesKey, unit: str, unix_s: float, value: float) -> None:
        """Take a figure of the machine; it is watched as any sender's."""
        self._show_point(self.series.write(key, "", unit, unix_s, value), Point(unix_s, value))

    def _show_point(self, series: Series, point: Point) -> None:
        if series.key.metric == names.AGREEMENT and point.seen:
            model = dict(series.key.labels).get(names.REQUEST_MODEL, "")
            mean = min(1.0, max(0.0, point.value))
            self._find(
                self.quality.observe_audits(
                    series.key.service, model, point.seen, mean, point.unix_s
                )
            )
        if not self.detectors:
            return
        for key, value in self._sampler.take(series, point):
            for detector in self.detectors:
                self._find(detector.observe_sample(key, point.unix_s, value))

    def _show_request(self, seen: SettledRequest) -> bool:
        self._find(self.quality.take(seen))
        for section in seen.sections:
            self._where[section.span.source.service] = (
                f"{section.span.source.service} {section.span.name}"
            )
        found = False
        for detector in self.detectors:
            findings = detector.observe_request(seen)
            self._find(findings)
            found = found or bool(findings)
        return found

    def _find(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            where = finding.critical_section or self._where.get(finding.service, "")
            self._tell(self.incidents.take(replace(finding, critical_section=where)))

    def _tell(self, incident: Incident) -> None:
        for tell in self._on_incident:
            tell(incident)

    def settle(self) -> int:
        """Settle what is due; returns how many traces were."""
        due = self.window.due(self.clock.monotonic(), SETTLED_A_ROUND)
        for trace_id in due:
            summary = self.analysis.settle(trace_id)
            self._subscribers.publish(summary)
        return len(due)

    async def run(self) -> None:
        """Settle traces and close quiet incidents for ever."""
        while True:
            await self.clock.sleep(0.0 if self.settle() >= SETTLED_A_ROUND else ROUND_S)
            for closed in self.incidents.close_quiet(self.clock.time()):
                self._tell(closed)
            self._write_state()

    def _write_state(self) -> None:
        now = self.clock.time()
        if now - self._state_written_s < STATE_EVERY_S:
            return
        self._state_written_s = now
        for name, value, unit, labels in self._own_figures():
            self.series.write(
                SeriesKey("telemetry", f"penstock.{name}", labels), "", unit, now, value
            )

    def _own_figures(self) -> Iterator[tuple[str, float, str, tuple[tuple[str, str], ...]]]:
        """(name, value, unit, labels) of what is known here alone: detectors, incidents, money by
        tenant and technique.
        """
        for detector in self.detectors:
            for name, value in detector.state().items():
                yield f"anomaly.{name}", value, "", ()
        yield (
            "incidents.open",
            float(sum(incident.open for incident in self.incidents.all())),
            "",
            (),
        )
        for total in self.ledger.by(lambda key: key.tenant)[:MAX_TENANTS_IN_METRICS]:
            tenant = ((names.TENANT, total.key),)
            yield "ledger.paid", total.account.paid_microusd / 1e6, "USD", tenant
            yield "ledger.full_price", total.account.full_price_microusd / 1e6, "USD", tenant
            for technique, amount in total.account.saved_microusd.items():
                yield "ledger.saved", amount / 1e6, "USD", (*tenant, (names.TECHNIQUE, technique))

    def subscribe(
        self, accepts: Callable[[TraceSummary], bool]
    ) -> AbstractContextManager[Subscription[TraceSummary]]:
        """Traces as they settle; a follower that does not keep up misses some."""
        return self._subscribers.subscribe(accepts)

    def lost_by_senders(self) -> int:
        """Spans that senders say they dropped."""
        return int(sum(series.total for series in self.series.find(names.DROPPED_SPANS)))
