"""From what telemetry takes in to incidents: shows it to every detector and collects the
findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from penstock.otel import attributes as semconv
from penstock.telemetry.detection.downsampling import Downsampler
from penstock.telemetry.detection.incidents import Detector, Finding, IncidentTracker
from penstock.telemetry.detection.operator_faults import OperatorFaults
from penstock.telemetry.detection.prefix_hits import PrefixHits
from penstock.telemetry.detection.quality import QualityMonitor
from penstock.telemetry.detection.thinning import Thinning
from penstock.telemetry.window.series import Point, Series
from penstock.telemetry.window.settled_traces import SettledRequest


class DetectionPipeline:
    """All detectors, the quality of answers, and the incidents that their findings make.

    Args:
        detectors: each is shown every metric sample and every settled request.
        incidents: where findings become incidents.
    """

    def __init__(
        self, detectors: Sequence[Detector] = (), incidents: IncidentTracker | None = None
    ) -> None:
        self.detectors = detectors
        self.incidents = incidents or IncidentTracker()
        self.quality = QualityMonitor()
        self._operator_faults = OperatorFaults()
        self._prefix_hits = PrefixHits()
        self._thinning = Thinning()
        self._downsampler = Downsampler()
        self._critical_sections: dict[str, str] = {}
        """By service: where its last request spent time on the critical path."""

    def observe_point(self, series: Series, point: Point) -> None:
        """Take a metric's point."""
        if series.key.metric == semconv.AGREEMENT and point.observations:
            self._report(self._audits(series, point))
        if series.key.metric == semconv.OPERATOR_FAULTS:
            self._report(self._operator_faults.observe_point(series, point))
        if not self.detectors or series.key.metric == semconv.BACKGROUND_DURATION:
            return
        for key, value in self._downsampler.add(series, point):
            for detector in self.detectors:
                self._report(detector.observe_sample(key, point.unix_s, value))

    def observe_request(self, request: SettledRequest) -> bool:
        """Take a settled request; returns whether a detector reported something of it. Where there
        are very many of a kind, detectors look at some of them.
        """
        self._report(self.quality.observe_request(request))
        self._report(self._prefix_hits.observe_request(request))
        if not self._thinning.takes(request):
            return False
        for section in request.critical_path:
            service = section.span.source.service
            self._critical_sections[service] = f"{service} {section.span.name}"
        is_anomalous = False
        for detector in self.detectors:
            findings = detector.observe_request(request)
            self._report(findings)
            is_anomalous = is_anomalous or bool(findings)
        return is_anomalous

    def metrics(self) -> Iterator[tuple[str, float]]:
        """(name, value) of the detectors' own metrics and of open incidents."""
        for detector in self.detectors:
            for name, value in detector.metrics().items():
                yield f"anomaly.{name}", value
        yield "incidents.open", float(self.incidents.open_count)

    def _audits(self, series: Series, point: Point) -> Iterable[Finding]:
        """A point of audited answers: how many were audited, and the mean of their agreement."""
        model = dict(series.key.labels).get(semconv.REQUEST_MODEL, "")
        agreement = min(1.0, max(0.0, point.value))
        return self.quality.observe_audits(
            series.key.service, model, point.observations, agreement, point.unix_s
        )

    def _report(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            section = finding.critical_section or self._critical_sections.get(finding.service, "")
            self.incidents.report(replace(finding, critical_section=section))
