"""`penstock trace` and `penstock top`: what telemetry holds."""

from __future__ import annotations

import asyncio
from datetime import datetime

import click
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.options import Command, with_session
from penstock.cli.output import plain, table
from penstock.cli.session import Session
from penstock.cli.timeline import run_summary, run_timeline
from penstock.cli.top import fetch_overview, top_data, top_screen
from penstock.cli.waterfall import WIDTH, waterfall
from rich.live import Live
from rich.table import Table
from rich.text import Text

TELEMETRY = pb.DESCRIPTOR.services_by_name["TelemetryService"]
REFRESH_S = 2.0
TEXT_COLUMNS = 70
"""Columns of a waterfall beside its time line, about."""
MIN_WIDTH = 10
LISTED = 20
"""Traces that are listed where nothing is said."""
SHORT_ID = 12
"""Digits of a trace's identifier that are listed."""


@click.command(cls=Command)
@click.argument("trace_id", metavar="[ID]", default="")
@click.option("--errors", is_flag=True, help="list only failed ones")
@click.option("--slower-than", type=click.FloatRange(0), default=0.0, help="milliseconds at least")
@click.option("--run", "run_id", default="", help="draw the calls of an agent run")
@click.option("--limit", type=click.IntRange(1, 1000), help="traces to list (20), calls to draw")
@with_session
def trace(
    session: Session,
    trace_id: str,
    errors: bool,
    slower_than: float,
    run_id: str,
    limit: int | None,
) -> None:
    """Draw a trace or, with --run, the calls of an agent run over all its traces; or list the
    newest traces.

    ID is its identifier, or the first 6 digits or more; without one, traces are listed.
    """
    if run_id:
        if trace_id or errors or slower_than:
            raise click.UsageError("--run stands alone, or with --limit")
        _draw_run(session, pb.GetRunTimelineRequest(run_id=run_id, limit=limit or 0))
        return
    if not trace_id:
        request = pb.SearchTracesRequest(
            errors_only=errors, min_duration_ms=slower_than, limit=limit or LISTED
        )
        listed = asyncio.run(_list(session, request))
        session.output.show(_table_of(listed), data=listed)
        return
    found = asyncio.run(_trace(session, trace_id))
    width = max(MIN_WIDTH, min(WIDTH, session.output.console.width - TEXT_COLUMNS))
    session.output.show(waterfall(found, width), data=found)


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="draw once and end")
@with_session
def top(session: Session, once: bool) -> None:
    """Show services, requests and incidents, every two seconds until Ctrl-C."""
    asyncio.run(_top(session, once))


def _table_of(listed: pb.SearchTracesResponse) -> Table | str:
    if not listed.traces:
        return "no such trace is held"
    made = table("trace", "began", "ms", "name", "tenant", "error", right=("ms",), whole=("trace",))
    for row in listed.traces:
        began = datetime.fromtimestamp(row.start_unix_ms / 1e3).strftime("%H:%M:%S")
        method = row.name.rpartition(".")[2]
        made.add_row(
            row.trace_id[:SHORT_ID],
            began,
            f"{row.duration_ms:,.1f}",
            *map(plain, (method, row.tenant, row.error)),
        )
    return made


def _draw_run(session: Session, request: pb.GetRunTimelineRequest) -> None:
    found = asyncio.run(_timeline(session, request))
    session.output.show(run_timeline(found), Text(run_summary(found), style="dim"), data=found)


async def _timeline(
    session: Session, request: pb.GetRunTimelineRequest
) -> pb.GetRunTimelineResponse:
    async with session.peer(session.target.telemetry, TELEMETRY) as peer:
        found: pb.GetRunTimelineResponse = await peer.call(
            "GetRunTimeline", request, session.call()
        )
        return found


async def _list(session: Session, request: pb.SearchTracesRequest) -> pb.SearchTracesResponse:
    async with session.peer(session.target.telemetry, TELEMETRY) as peer:
        listed: pb.SearchTracesResponse = await peer.call("SearchTraces", request, session.call())
        return listed


async def _trace(session: Session, trace_id: str) -> pb.GetTraceResponse:
    async with session.peer(session.target.telemetry, TELEMETRY) as peer:
        request = pb.GetTraceRequest(trace_id=trace_id)
        found: pb.GetTraceResponse = await peer.call("GetTrace", request, session.call())
        return found


async def _top(session: Session, once: bool) -> None:
    console = session.output.console
    async with session.peer(session.target.telemetry, TELEMETRY) as peer:
        overview = await fetch_overview(peer)
        if once or session.output.as_json:
            session.output.show(top_screen(overview), data=top_data(overview))
            return
        with Live(top_screen(overview), console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(REFRESH_S)
                live.update(top_screen(await fetch_overview(peer)), refresh=True)
