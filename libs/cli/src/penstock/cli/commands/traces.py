"""`penstock trace` and `penstock top`: what telemetry holds."""

from __future__ import annotations

import asyncio

import click
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.options import Command, with_session
from penstock.cli.session import Session
from penstock.cli.top import fetch_overview, top_data, top_screen
from penstock.cli.waterfall import WIDTH, waterfall
from rich.live import Live

TELEMETRY = pb.DESCRIPTOR.services_by_name["TelemetryService"]
REFRESH_S = 2.0
TEXT_COLUMNS = 70
"""Columns of a waterfall beside its time line, about."""
MIN_WIDTH = 10


@click.command(cls=Command)
@click.argument("trace_id", metavar="ID")
@with_session
def trace(session: Session, trace_id: str) -> None:
    """Draw a trace; ID is its identifier, or the first 6 digits or more."""
    found = asyncio.run(_trace(session, trace_id))
    width = max(MIN_WIDTH, min(WIDTH, session.output.console.width - TEXT_COLUMNS))
    session.output.show(waterfall(found, width), data=found)


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="draw once and end")
@with_session
def top(session: Session, once: bool) -> None:
    """Show services, requests and incidents, every two seconds until Ctrl-C."""
    asyncio.run(_top(session, once))


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
