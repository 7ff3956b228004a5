"""Faults injected into a simulated fleet: how many the detectors find, how soon, and false alerts.

Everything runs in virtual time; the detectors are those of the telemetry service.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.otel import attributes as semconv
from penstock.simulation.requests import START_UNIX_S, Fault, RequestSimulation, arrivals
from penstock.telemetry.detection.downsampling import SAMPLE_INTERVAL_S
from penstock.telemetry.detection.group_state import fit_baseline
from penstock.telemetry.detection.incidents import Detector, Finding, Incident, IncidentTracker
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.quality import QualityMonitor
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.settled_traces import SettledRequest

SERVICES = ("router", "cache", "batcher", "inference")
KINDS = {
    "slow instance": (3.0, 4.0, 6.0),
    "error burst": (0.2, 0.3, 0.5),
    "cache poisoning": (0.25, 0.4),
    "drift": (0.1, 0.15),
}
"""Kinds of faults and their strengths: times slower, share of requests failing, share of answers
wrong, confidence lost.
"""
FEATURES = {
    "slow instance": ("latency_ms", "duration", "queue"),
    "error burst": ("error",),
    "cache poisoning": ("agreement",),
    "drift": ("confidence",),
}
"""A finding counts for a kind of fault where the name of one of its features has one of these."""
WARM_UP_S = 1800.0
FAULT_S = 300.0
DURATION_FACTORS = {"cache poisoning": 2.5}
"""How many times longer a kind lasts: one hit in some sixty is audited, so evidence of wrong
answers takes minutes to accumulate.
"""
CALM_S = 600.0
CALM_JITTER_S = 120.0
AFTERMATH_S = 240.0
"""An incident that opens within this time after a fault is its consequence, no false alert."""
REFIT_S = 1.0
LATENCY_METRIC = "rpc.server.call.duration"


@dataclass
class Series:
    """Sum and number of a metric's values since the last sample."""

    total: float = 0.0
    count: float = 0.0


@dataclass
class Monitoring:
    """The detectors and their incidents, connected as the telemetry service connects them."""

    detectors: list[Detector] = field(default_factory=list)
    requests: RequestDetector = field(default_factory=RequestDetector)
    quality: QualityMonitor = field(default_factory=QualityMonitor)
    incidents: IncidentTracker = field(default_factory=IncidentTracker)
    findings: list[Finding] = field(default_factory=list)
    fitted_s: float = 0.0
    series: dict[SeriesKey, Series] = field(default_factory=lambda: defaultdict(Series))
    sampled_s: float = 0.0

    def __post_init__(self) -> None:
        self.detectors += [MetricDetector(), self.requests]

    def observe(self, now_s: float, request: SettledRequest) -> None:
        """Take a settled request, and do what is due by then."""
        if now_s - self.sampled_s >= SAMPLE_INTERVAL_S:
            self._sample(now_s)
        self._count(request)
        found = list(self.quality.observe_request(request))
        for detector in self.detectors:
            found += detector.observe_request(request)
        self._record(found)
        if now_s - self.fitted_s >= REFIT_S and (fit := self.requests.next_fit()) is not None:
            self.fitted_s = now_s
            self.requests.set_baseline(fit.group, fit_baseline(fit.sample))

    def _record(self, found: Sequence[Finding]) -> None:
        for finding in found:
            self.findings.append(finding)
            self.incidents.report(finding)

    def _count(self, request: SettledRequest) -> None:
        for span in request.tree.spans:
            service = span.source.service
            self._add(service, LATENCY_METRIC, span.duration_ns / 1e9)
            self._add(service, "error share", float(bool(span.error)))
        root = request.tree.root.attributes
        self._add("cache", "hit share", float(bool(request.summary.cache)))
        self._add("batcher", "queue wait", float(root.get(semconv.QUEUED_MS, 0.0)))
        self._add("router", "tokens out", float(root.get(semconv.OUTPUT_TOKENS, 0.0)))

    def _add(self, service: str, metric: str, value: float) -> None:
        series = self.series[SeriesKey(service, metric)]
        series.total += value
        series.count += 1.0

    def _sample(self, now_s: float) -> None:
        """Give the detectors each metric's mean since the last sample, and the request rates."""
        length_s = now_s - self.sampled_s
        self.sampled_s = now_s
        for key, series in self.series.items():
            points = [(key, series.total / series.count)] if series.count else []
            if key.metric == LATENCY_METRIC:
                rate_key = SeriesKey(key.service, key.metric + ":rate")
                points.append((rate_key, series.count / length_s))
            for point_key, value in points:
                for detector in self.detectors:
                    self._record(detector.observe_sample(point_key, START_UNIX_S + now_s, value))
            self.series[key] = Series()


def plan_faults(rng: random.Random, hours: float) -> list[Fault]:
    """Faults of all kinds in turn, with calm between them."""
    faults: list[Fault] = []
    kinds = list(KINDS)
    at_s = WARM_UP_S
    while True:
        kind = kinds[len(faults) % len(kinds)]
        to_s = at_s + FAULT_S * DURATION_FACTORS.get(kind, 1.0)
        if to_s + CALM_S > hours * 3600:
            return faults
        faults.append(Fault(kind, at_s, to_s, rng.choice(KINDS[kind])))
        at_s = to_s + CALM_S + rng.uniform(0.0, CALM_JITTER_S)


@dataclass(frozen=True)
class ReplayResult:
    """What a replay showed.

    Attributes:
        faults: each fault with the seconds until it was found, None where it was not.
        false_alerts: incidents that no fault explains.
        calm_service_hours: hours in which an incident counts as a false alert, summed over the
            services.
    """

    faults: Sequence[tuple[Fault, float | None]]
    false_alerts: Sequence[Incident]
    calm_service_hours: float

    @property
    def recall(self) -> float:
        """Share of the faults that were found."""
        return sum(delay is not None for _, delay in self.faults) / max(1, len(self.faults))

    @property
    def delay_s(self) -> float:
        """Median seconds until a fault was found; 0 where none was."""
        delays_s = [delay for _, delay in self.faults if delay is not None]
        return statistics.median(delays_s) if delays_s else 0.0


def replay(folder: Path | None, hours: float, seed: int) -> ReplayResult:
    """Run the fleet with faults for so many hours of virtual time.

    Args:
        folder: the data folder with the request trace, or None for generated requests.
        hours: length in virtual time.
        seed: of faults and fleet.
    """
    rng = random.Random(seed)
    faults = plan_faults(rng, hours)
    monitoring = Monitoring()
    for now_s, request in RequestSimulation(faults, rng).run(arrivals(folder, rng, hours)):
        if now_s >= hours * 3600:
            break  # nothing arrives any more; the last answers alone are no typical traffic
        monitoring.observe(now_s, request)
    found = [(fault, _detection_delay_s(fault, monitoring.findings)) for fault in faults]
    incidents = monitoring.incidents.newest_first()
    false_alerts = [incident for incident in incidents if not _is_explained(incident, faults)]
    explained_s = sum(fault.to_s - fault.from_s + AFTERMATH_S for fault in faults)
    calm_hours = (hours * 3600 - explained_s) * len(SERVICES) / 3600
    return ReplayResult(found, false_alerts, calm_hours)


def _detection_delay_s(fault: Fault, findings: Sequence[Finding]) -> float | None:
    for finding in findings:
        at_s = finding.at_unix_s - START_UNIX_S
        features = " ".join(contribution.feature for contribution in finding.contributions)
        named = any(word in features for word in FEATURES[fault.kind])
        if fault.from_s <= at_s <= fault.to_s and named:
            return at_s - fault.from_s
    return None


def _is_explained(incident: Incident, faults: Sequence[Fault]) -> bool:
    at_s = incident.opened_unix_s - START_UNIX_S
    return any(fault.from_s <= at_s <= fault.to_s + AFTERMATH_S for fault in faults)
