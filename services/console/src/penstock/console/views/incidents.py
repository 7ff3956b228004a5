"""Incidents: what changed, in which service, and by which features."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Row, Rows
from penstock.console.drawing.format import Query, link
from penstock.console.service_clients import ServiceClients
from penstock.console.views.unavailable import unavailable

FEATURES_SHOWN = 3


async def show_incidents(clients: ServiceClients, query: Query) -> Sequence[Block]:
    """What changed?"""
    response = await clients.call(
        "telemetry", "ListIncidents", pb.ListIncidentsRequest(), pb.ListIncidentsResponse
    )
    if response is None:
        return unavailable(clients, "telemetry")
    columns = ("state", "service", "what", "severity", "features", "critical section", "trace")
    rows = [_incident_row(incident, query) for incident in response.incidents]
    table = Rows("Incidents", columns, rows, "no incident so far")
    if not rows:
        return [table]
    severities: dict[str, list[tuple[float, float]]] = {}
    for incident in response.incidents:
        point = (float(incident.opened_unix_ms), incident.severity)
        severities.setdefault(incident.service, []).append(point)
    return [table, Chart("Severity over time", charts.dots_over_time(severities, "severity"))]


def _incident_row(incident: pb.Incident, query: Query) -> Row:
    is_open = incident.state == pb.INCIDENT_STATE_OPEN
    trace: Cell | str = ""
    if incident.trace_ids:
        trace_id = incident.trace_ids[0]
        trace = Cell(trace_id[:12], link("/traces", query, id=trace_id))
    features = [_feature(part, incident) for part in incident.contributions[:FEATURES_SHOWN]]
    return [
        Cell("open" if is_open else "closed", bad=is_open),
        incident.service,
        incident.summary,
        f"{incident.severity:.1f}",
        ", ".join(features),
        incident.critical_section,
        trace,
    ]


def _feature(part: pb.Contribution, incident: pb.Incident) -> str:
    """A feature and its share, with its subject where that is not the incident's own."""
    feature = f"{part.feature} {part.share:.0%}"
    is_other = part.subject not in ("", incident.subject)
    return f"{part.subject}: {feature}" if is_other else feature
