"""The command `penstock`: `penstock trace ID` draws a trace, `penstock top` shows what goes on now.

Both ask a running telemetry service over gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.cli.top import top_screen
from penstock.cli.waterfall import waterfall
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from rich.console import Console
from rich.live import Live

SERVICE = pb.DESCRIPTOR.services_by_name["TelemetryService"]
REFRESH_S = 2.0


def main() -> None:
    """Run the command and end the process with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `trace ID` or `top`.

    Returns the exit status: 0, or 1 when telemetry does not answer or has no such trace.
    """
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        asyncio.run(_run(options, console))
    except Fault as fault:
        console.print(f"penstock {options.command}: {fault.message}", style="red")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def internal_token() -> str:
    """The token for internal ports: from the environment, else from the file that `make up` writes.

    Empty when there is neither.
    """
    if token := os.environ.get("PENSTOCK_INTERNAL_TOKEN"):
        return token
    path = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "internal-token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock", description="Show what a running telemetry service holds."
    )
    parser.add_argument(
        "--address",
        default=os.environ.get("PENSTOCK_TELEMETRY", "127.0.0.1:4317"),
        help="telemetry's address, host:port (default: %(default)s)",
    )
    parser.add_argument(
        "--token",
        default=internal_token(),
        help="the internal token (default: $PENSTOCK_INTERNAL_TOKEN, else the one of `make up`)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    trace = commands.add_parser("trace", help="draw a trace")
    trace.add_argument("id", help="trace identifier, or its first 6 digits or more")
    top = commands.add_parser("top", help="services, requests and incidents, every two seconds")
    top.add_argument("--once", action="store_true", help="draw once and end")
    return parser


async def _run(options: argparse.Namespace, console: Console) -> None:
    peer = UnaryPeer(open_channel(options.address), SERVICE, token=options.token)
    try:
        if options.command == "trace":
            request = pb.GetTraceRequest(trace_id=options.id)
            console.print(waterfall(await peer.call("GetTrace", request, Call())))
        elif options.once:
            console.print(await top_screen(peer))
        else:
            await _refresh_top(peer, console)
    finally:
        await peer.close()


async def _refresh_top(peer: UnaryPeer, console: Console) -> None:
    """Redraw `top` until the process is interrupted."""
    with Live(await top_screen(peer), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(await top_screen(peer), refresh=True)
