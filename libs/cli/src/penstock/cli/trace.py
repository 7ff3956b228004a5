"""`penstock trace ID` and `penstock top`: the same answers in a terminal.

Asks a running telemetry service and draws.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.waterfall import waterfall
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

SERVICE = pb.DESCRIPTOR.services_by_name["TelemetryService"]
BARS = "▁▂▃▄▅▆▇█"


def kept_token() -> str:
    """From the environment, else where `make up` keeps it."""
    kept = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "internal-token"
    try:
        return os.environ.get("PENSTOCK_INTERNAL_TOKEN") or kept.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def main() -> None:
    """The command `penstock`."""
    sys.exit(ask(sys.argv[1:]))


def ask(arguments: list[str]) -> int:
    """Run `trace ID` or `top`; returns the exit status, 1 when telemetry does not answer or has no
    such trace.
    """
    parser = argparse.ArgumentParser(
        prog="penstock", description="Ask a running telemetry service."
    )
    parser.add_argument("--address", default=os.environ.get("PENSTOCK_TELEMETRY", "127.0.0.1:4317"))
    parser.add_argument("--token", default=kept_token(), help="the internal token")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("trace", help="draw a trace").add_argument(
        "id", help="trace id, or its first digits"
    )
    top = commands.add_parser("top", help="services, requests and incidents, every two seconds")
    top.add_argument("--once", action="store_true", help="draw once and end")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        asyncio.run(_answer(options, console))
    except Fault as fault:
        console.print(f"penstock {options.command}: {fault.message}", style="red")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


async def _answer(options: argparse.Namespace, console: Console) -> None:
    peer = UnaryPeer(open_channel(options.address), SERVICE, token=options.token)
    try:
        if options.command == "trace":
            console.print(
                waterfall(
                    await peer.call("GetTrace", pb.GetTraceRequest(trace_id=options.id), Call())
                )
            )
        elif options.once:
            console.print(await screen(peer))
        else:
            with Live(await screen(peer), console=console, auto_refresh=False) as live:
                while True:
                    await asyncio.sleep(2.0)
                    live.update(await screen(peer), refresh=True)
    finally:
        await peer.close()


async def screen(peer: UnaryPeer) -> Group:
    """One picture of `top`."""
    overview, requests, incidents, savings = await asyncio.gather(
        peer.call("GetOverview", pb.GetOverviewRequest(), Call()),
        peer.call("SearchTraces", pb.SearchTracesRequest(limit=12), Call()),
        peer.call("ListIncidents", pb.ListIncidentsRequest(open_only=True), Call()),
        peer.call("GetSavings", pb.GetSavingsRequest(), Call()),
    )
    return Group(
        _services(overview), "", _requests(requests), "", _incidents(incidents), _money(savings)
    )


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
            spark(list(row.spark)),
        )
    return table


def _requests(found: pb.SearchTracesResponse) -> Table:
    table = Table("trace", "operation", "tenant", "ms", "cache", "error", box=None)
    for row in found.traces:
        cells = (
            row.trace_id[:12],
            row.name,
            row.tenant,
            f"{row.duration_ms:.2f}",
            row.cache,
            row.error,
        )
        table.add_row(*cells, style="red" if row.error else "")
    return table


def _incidents(found: pb.ListIncidentsResponse) -> Table | str:
    if not found.incidents:
        return "no open incident"
    table = Table("incident", "service", "what", "alerts", box=None, style="red")
    for row in found.incidents:
        table.add_row(row.id, row.service, row.summary, str(row.alerts))
    return table


def _money(savings: pb.GetSavingsResponse) -> str:
    saved = savings.full_price_microusd - savings.paid_microusd
    return (
        f"paid ${savings.paid_microusd / 1e6:.6f}, saved ${saved / 1e6:.6f} in {savings.calls} "
        "calls"
    )


def spark(values: list[float]) -> str:
    """Values as a line of blocks."""
    high = max(values, default=0.0)
    if high <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(int(value / high * 7.999), 7)] for value in values)
