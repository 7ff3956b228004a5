"""The screen of `penstock top`: services, the last requests, open incidents, money."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.output import to_json
from penstock.rpc.call import Call
from penstock.rpc.peers.unary import UnaryPeer
from rich.console import Group
from rich.table import Table

BLOCKS = "▁▂▃▄▅▆▇█"
REQUESTS_SHOWN = 12


@dataclass(frozen=True)
class Overview:
    """What telemetry said at one moment."""

    services: pb.GetOverviewResponse
    requests: pb.SearchTracesResponse
    incidents: pb.ListIncidentsResponse
    savings: pb.GetSavingsResponse


async def fetch_overview(peer: UnaryPeer) -> Overview:
    """Ask telemetry for all that the screen shows.

    Raises:
        Fault: telemetry does not answer.
    """
    return Overview(
        *await asyncio.gather(
            peer.call("GetOverview", pb.GetOverviewRequest(), Call()),
            peer.call("SearchTraces", pb.SearchTracesRequest(limit=REQUESTS_SHOWN), Call()),
            peer.call("ListIncidents", pb.ListIncidentsRequest(open_only=True), Call()),
            peer.call("GetSavings", pb.GetSavingsRequest(), Call()),
        )
    )


def top_screen(overview: Overview) -> Group:
    """One picture of `top`."""
    return Group(
        _services(overview.services),
        "",
        _requests(overview.requests),
        "",
        _incidents(overview.incidents),
        _money(overview.savings),
    )


def top_data(overview: Overview) -> dict[str, Any]:
    """The same for scripts, by subject."""
    return {
        "services": to_json(overview.services),
        "requests": to_json(overview.requests),
        "incidents": to_json(overview.incidents),
        "savings": to_json(overview.savings),
    }


def sparkline(values: list[float]) -> str:
    """Values as a line of blocks, one a value; the highest value is a full block."""
    high = max(values, default=0.0)
    if high <= 0:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[min(int(value / high * 7.999), 7)] for value in values)


def _services(overview: pb.GetOverviewResponse) -> Table:
    table = Table(
        "service", "instances", "calls/s", "success", "p50 ms", "p99 ms", "last minute", box=None
    )
    for row in overview.rows:
        table.add_row(
            row.service,
            str(row.instances),
            f"{row.calls_per_s:.1f}",
            f"{row.success:.1%}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            sparkline(list(row.spark)),
        )
    return table


def _requests(response: pb.SearchTracesResponse) -> Table:
    table = Table("trace", "operation", "tenant", "ms", "cache", "error", box=None)
    for row in response.traces:
        table.add_row(
            row.trace_id[:12],
            row.name,
            row.tenant,
            f"{row.duration_ms:.2f}",
            row.cache,
            row.error,
            style="red" if row.error else "",
        )
    return table


def _incidents(response: pb.ListIncidentsResponse) -> Table | str:
    if not response.incidents:
        return "no open incident"
    table = Table("incident", "service", "what", "alerts", box=None, style="red")
    for row in response.incidents:
        table.add_row(row.id, row.service, row.summary, str(row.alerts))
    return table


def _money(savings: pb.GetSavingsResponse) -> str:
    paid = savings.paid_microusd / 1e6
    saved = (savings.full_price_microusd - savings.paid_microusd) / 1e6
    return f"paid ${paid:.6f}, saved ${saved:.6f} in {savings.calls} calls"
