"""`make up`: everything in the foreground, one log stream, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from penstock.service.program import CannotStart
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

DEVELOPMENT_KEY = "psk-development"
SHOWN = (
    "router",
    "cache",
    "limiter",
    "batcher",
    "inference-1",
    "inference-2",
    "scaler",
    "telemetry",
    "metrics",
)


async def up(home: Path, config_file: Path, console: Console) -> None:
    """Run until SIGINT or SIGTERM, which are heard from the first moment on.

    Raises:
        CannotStart: a port is in use, or something refuses to start or gives up later.
    """
    addresses = ports.documented()
    if taken := ports.taken(addresses):
        names = ", ".join(f"{address} ({name})" for name, address in taken.items())
        raise CannotStart(
            f"already in use: {names}; stop what listens there, another `make up` perhaps "
            "(`ss -ltnp`)"
        )
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    log = LogStream(console)
    serving = asyncio.create_task(_serve(addresses, home, config_file, console, log))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait([serving, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not serving.done():
        log("penstock", "stopping")
        serving.cancel()
        await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
    log("penstock", "stopped; no process is left")


async def _serve(
    addresses: Mapping[str, str], home: Path, config_file: Path, console: Console, log: LogStream
) -> NoReturn:
    """Start, announce, and stay until something gives up; whoever cancels this waits for the last
    process to end.
    """
    keys = {"development": DEVELOPMENT_KEY}
    async with run_stack(addresses, home, config_file, keys, log) as stack:
        await stack.wait_for_instances("all-MiniLM-L6-v2", stack.plan.instances, "development")
        _announce(stack, console)
        raise CannotStart(await stack.supervisor.wait_for_failure())


def _announce(stack: Stack, console: Console) -> None:
    rows = "  ".join(f"{name} [bold]{stack.addresses[name]}[/]" for name in SHOWN)
    token = stack.plan.home / "internal-token"
    page = f"http://{stack.addresses['console']}/"
    console.print(f"\n[bold green]ready[/]  {rows}")
    console.print(f"       console [bold]{page}[/]")
    console.print(
        f"       API key [bold]{DEVELOPMENT_KEY}[/]   internal token in {token}   Ctrl-C "
        "stops everything\n"
    )
