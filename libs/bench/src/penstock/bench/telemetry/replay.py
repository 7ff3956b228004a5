"""Faults injected into a replay in virtual time: how many the detectors find, how soon, and how
often they cry without one.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.otel import attributes as semconv
from penstock.simulation.requests import START_UNIX_S, Fault, World, arrivals
from penstock.telemetry.detection.baseline import fit_baseline
from penstock.telemetry.detection.downsampling import SAMPLE_INTERVAL_S
from penstock.telemetry.detection.findings import Detector, Finding
from penstock.telemetry.detection.incidents import Incident, IncidentTracker
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.quality import QualityMonitor
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.trace_summary import SettledRequest

SERVICES = ("router", "cache", "batcher", "inference")
KINDS = {
    "slow instance": (3.0, 4.0, 6.0),
    "error burst": (0.2, 0.3, 0.5),
    "cache poisoning": (0.25, 0.4),
    "drift": (0.1, 0.15),
}
"""Kinds and their strengths: times slower, share failing, share of wrong answers, confidence lost.
"""

FEATURES = {
    "slow instance": ("latency_ms", "duration", "queue"),
    "error burst": ("error",),
    "cache poisoning": ("agreement",),
    "drift": ("confidence",),
}
"""Words one of which the blamed features must have, for a finding to count as having found a fault
of the kind.
"""

WARM_UP_S = 1800.0
FAULT_S = 300.0
CALM_S = 600.0
AFTER_S = 240.0
"""What is found so soon after a fault is its aftermath: neither its finding nor a false alert."""


@dataclass
class Watched:
    """The detectors with their incidents, as the service has them."""

    detectors: list[Detector] = field(default_factory=list)
    requests: RequestDetector = field(default_factory=RequestDetector)
    quality: QualityMonitor = field(default_factory=QualityMonitor)
    book: IncidentTracker = field(default_factory=IncidentTracker)
    findings: list[Finding] = field(default_factory=list)
    fitted_s: float = 0.0
    streams: dict[SeriesKey, list[float]] = field(
        default_factory=lambda: defaultdict(lambda: [0.0, 0.0])
    )
    sampled_s: float = 0.0

    def __post_init__(self) -> None:
        self.detectors += [MetricDetector(), self.requests]

    def take(self, now_s: float, seen: SettledRequest) -> None:
        """A request that has settled, and whatever is due by now."""
        if now_s - self.sampled_s >= SAMPLE_INTERVAL_S:
            self._sample(now_s)
        self._count(seen)
        found = list(self.quality.observe_request(seen))
        for detector in self.detectors:
            found += detector.observe_request(seen)
        self._find(found)
        if now_s - self.fitted_s >= 1.0 and (fit := self.requests.next_fit()) is not None:
            self.fitted_s = now_s
            self.requests.set_baseline(fit.group, fit_baseline(fit.sample))

    def _find(self, found: Sequence[Finding]) -> None:
        for finding in found:
            self.findings.append(finding)
            self.book.report(finding)

    def _count(self, seen: SettledRequest) -> None:
        for span in seen.tree.spans:
            service = span.source.service
            self._add(service, "rpc.server.call.duration", span.duration_ns / 1e9)
            self._add(service, "error share", float(bool(span.error)))
        root = seen.tree.root.attributes
        self._add("cache", "hit share", float(bool(seen.summary.cache)))
        self._add("batcher", "queue wait", float(root.get(semconv.QUEUED_MS, 0.0)))
        self._add("router", "tokens out", float(root.get(semconv.OUTPUT_TOKENS, 0.0)))

    def _add(self, service: str, metric: str, value: float) -> None:
        held = self.streams[SeriesKey(service, metric)]
        held[0] += value
        held[1] += 1.0

    def _sample(self, now_s: float) -> None:
        length_s, self.sampled_s = now_s - self.sampled_s, now_s
        for key, (total, count) in self.streams.items():
            told = [(key, total / count)] if count else []
            if key.metric == "rpc.server.call.duration":
                told.append((SeriesKey(key.service, key.metric + ":rate"), count / length_s))
            for series, value in told:
                for detector in self.detectors:
                    self._find(detector.observe_sample(series, START_UNIX_S + now_s, value))
            self.streams[key] = [0.0, 0.0]


def planned(rng: random.Random, hours: float) -> list[Fault]:
    """Faults of all kinds in turn, with calm between them."""
    at, found, kinds = WARM_UP_S, list[Fault](), list(KINDS)
    while at + FAULT_S + CALM_S <= hours * 3600:
        kind = kinds[len(found) % len(kinds)]
        found.append(Fault(kind, at, at + FAULT_S, rng.choice(KINDS[kind])))
        at += FAULT_S + CALM_S + rng.uniform(0.0, 120.0)
    return found


@dataclass(frozen=True)
class Replayed:
    """What came of it: each fault with the seconds until it was found (None when it was not), and
    incidents that were none.
    """

    faults: Sequence[tuple[Fault, float | None]]
    false: Sequence[Incident]
    service_hours: float

    @property
    def recall(self) -> float:
        return sum(delay is not None for _, delay in self.faults) / max(1, len(self.faults))

    @property
    def delay_s(self) -> float:
        """Median of those found; 0 when none was."""
        found = [delay for _, delay in self.faults if delay is not None]
        return statistics.median(found) if found else 0.0


def replay(folder: Path | None, hours: float, seed: int) -> Replayed:
    """Run the fleet with faults for so many hours of its own time."""
    rng = random.Random(seed)
    faults = planned(rng, hours)
    watched = Watched()
    for now_s, seen in World(faults, rng).run(arrivals(folder, rng, hours)):
        if (
            now_s >= hours * 3600
        ):  # nothing arrives any more, only the longest end: no hour of a fleet
            break
        watched.take(now_s, seen)
    found = [(fault, _found(fault, watched.findings)) for fault in faults]
    false = [
        incident for incident in watched.book.newest_first() if not _explained(incident, faults)
    ]
    return Replayed(found, false, hours * len(SERVICES))


def _found(fault: Fault, findings: Sequence[Finding]) -> float | None:
    for finding in findings:
        at_s = finding.at_unix_s - START_UNIX_S
        blamed = " ".join(contribution.feature for contribution in finding.contributions)
        if fault.from_s <= at_s <= fault.to_s and any(
            word in blamed for word in FEATURES[fault.kind]
        ):
            return at_s - fault.from_s
    return None


def _explained(incident: Incident, faults: Sequence[Fault]) -> bool:
    at_s = incident.opened_unix_s - START_UNIX_S
    return any(fault.from_s <= at_s <= fault.to_s + AFTER_S for fault in faults)
