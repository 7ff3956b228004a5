"""The overview: every service in one row, and what telemetry holds and has lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Row, Rows, Tile, Tiles
from penstock.console.drawing.format import Query, link
from penstock.console.service_clients import ServiceClients
from penstock.console.views.unavailable import unavailable

OVERVIEW_S = 60.0
"""The period that telemetry shows where none is asked for."""

GOOD_SUCCESS = 0.99
"""A smaller share of successful calls is marked as bad."""


async def show_overview(clients: ServiceClients, query: Query) -> Sequence[Block]:
    """Is anything wrong now?"""
    overview, intake, incidents = await asyncio.gather(
        clients.call("telemetry", "GetOverview", pb.GetOverviewRequest(), pb.GetOverviewResponse),
        clients.call("telemetry", "GetIntake", pb.GetIntakeRequest(), pb.GetIntakeResponse),
        clients.call(
            "telemetry",
            "ListIncidents",
            pb.ListIncidentsRequest(open_only=True),
            pb.ListIncidentsResponse,
        ),
    )
    if overview is None or intake is None:
        return unavailable(clients, "telemetry")
    open_incidents = len(incidents.incidents) if incidents else 0
    columns = ("service", "instances", "calls/s", "success", "p50 ms", "p99 ms")
    calls = {row.service: list(row.spark) for row in overview.rows}
    return [
        Tiles(_tiles(overview, intake, open_incidents)),
        Rows("Services", columns, [_service_row(row, query) for row in overview.rows]),
        Chart("Calls a second, the last minute", charts.until_now(calls, "calls/s", OVERVIEW_S)),
    ]


def _tiles(
    overview: pb.GetOverviewResponse, intake: pb.GetIntakeResponse, open_incidents: int
) -> list[Tile]:
    calls_per_s = sum(row.calls_per_s for row in overview.rows if row.service == "router")
    lost = intake.lost_by_senders
    return [
        Tile("services", str(len(overview.rows))),
        Tile("calls a second", f"{calls_per_s:.1f}", "at the router"),
        Tile("open incidents", str(open_incidents), bad=open_incidents > 0),
        Tile("spans held", f"{intake.held_spans:,}", f"{intake.held_traces:,} traces"),
        Tile("spans lost", str(lost), "by senders", bad=lost > 0),
    ]


def _service_row(row: pb.ServiceRow, query: Query) -> Row:
    return [
        Cell(row.service, link("/traces", query, service=row.service)),
        str(row.instances),
        f"{row.calls_per_s:.1f}",
        Cell(f"{row.success:.2%}", share=row.success, bad=row.success < GOOD_SUCCESS),
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
    ]
