"""`make up`: everything in the foreground, one log stream, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from penstock.core.program import CannotStart
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, running
from rich.console import Console

DEVELOPMENT_KEY = "psk-development"
SHOWN = ("router", "cache", "limiter", "batcher", "inference-1", "inference-2", "scaler", "telemetry", "metrics")


async def up(home: Path, config_file: Path, console: Console) -> None:
    """Run until SIGINT or SIGTERM.

    Raises:
        CannotStart: something refuses to start or gives up later.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    log = LogStream(console)
    keys = {"development": DEVELOPMENT_KEY}
    async with running(ports.documented(), home, config_file, keys, log) as stack:
        await stack.wait_for_instances("all-MiniLM-L6-v2", stack.plan.instances, "development")
        _announce(stack, console)
        stop = asyncio.create_task(asked.wait())
        failed = asyncio.create_task(stack.supervisor.failed())
        done, _ = await asyncio.wait([stop, failed], return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, failed):
            task.cancel()
        log("penstock", "stopping")
        if failed in done:
            raise CannotStart(failed.result())
    log("penstock", "stopped; no process is left")


def _announce(stack: Stack, console: Console) -> None:
    rows = "  ".join(f"{name} [bold]{stack.addresses[name]}[/]" for name in SHOWN)
    token = stack.plan.home / "internal-token"
    page = f"http://{stack.addresses['console']}/"
    console.print(f"\n[bold green]ready[/]  {rows}")
    console.print(f"       console [bold]{page}[/]")
    console.print(f"       API key [bold]{DEVELOPMENT_KEY}[/]   internal token in {token}   Ctrl-C stops everything\n")
