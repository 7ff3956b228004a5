"""What a run of a stack with faults showed: which were found, how soon, and what no fault explains.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.telemetry.faulty_instances import INTENT_MODEL, MODELS
from penstock.bench.telemetry.replay import FEATURES

SERVICES = ("router", "cache", "limiter", "batcher", "inference-onnx-quantized")


@dataclass(frozen=True)
class InjectedFault:
    """A fault that was injected: its kind, and its begin and end in Unix seconds."""

    kind: str
    from_s: float
    to_s: float

    def detection_delay_s(self, updates: Sequence[pb.Incident]) -> float | None:
        """Seconds until an incident named a feature that this fault changes, in its own model.

        None where no incident did during the fault. An incident that was open and named the feature
        before the fault does not count, one that had closed and opens again does.
        """
        before = {row.id: row for row in updates if row.last_unix_ms / 1e3 < self.from_s}
        already_named = {
            row.id: self._named(row)
            for row in before.values()
            if row.state == pb.INCIDENT_STATE_OPEN
        }
        delays_s = [
            row.last_unix_ms / 1e3 - self.from_s
            for row in updates
            if self.from_s <= row.last_unix_ms / 1e3 <= self.to_s
            and self._named(row) - already_named.get(row.id, set())
        ]
        return min(delays_s, default=None)

    def _named(self, incident: pb.Incident) -> set[tuple[str, str]]:
        """(subject, feature) pairs of the incident that this fault explains."""
        model = MODELS.get(self.kind, INTENT_MODEL)
        return {
            (part.subject, part.feature)
            for part in incident.contributions
            if model in part.subject.split()
            and any(word in part.feature for word in FEATURES[self.kind])
        }


@dataclass(frozen=True)
class StackRun:
    """What a run showed.

    Attributes:
        faults: in the order of injection.
        updates: incidents as they opened and changed, in order.
        seconds: length of the run.
        requests: number of requests sent.
        metric_streams: number of metric streams that were watched.
        aftermath_s: see Schedule.
        host_load: mean load average of the machine; other work on it slows the stack too.
    """

    faults: Sequence[InjectedFault]
    updates: Sequence[pb.Incident]
    seconds: float
    requests: int
    metric_streams: float
    aftermath_s: float
    host_load: float = 0.0

    @property
    def calm_service_hours(self) -> float:
        """Hours in which an incident counts as a false alert, summed over the services."""
        explained_s = sum(fault.to_s - fault.from_s + self.aftermath_s for fault in self.faults)
        return (self.seconds - explained_s) * len(SERVICES) / 3600.0

    def delays_s(self) -> dict[str, float | None]:
        """Seconds until each kind of fault was found; None where it was not."""
        return {fault.kind: fault.detection_delay_s(self.updates) for fault in self.faults}

    def false_alerts(self) -> list[pb.Incident]:
        """Incidents opened neither during a fault nor in its aftermath."""
        incidents = {row.id: row for row in self.updates}.values()
        return [incident for incident in incidents if not self._is_explained(incident)]

    def _is_explained(self, incident: pb.Incident) -> bool:
        opened_s = incident.opened_unix_ms / 1e3
        return any(
            fault.from_s <= opened_s <= fault.to_s + self.aftermath_s for fault in self.faults
        )
