"""`make up`: the whole stack in the foreground, with one log, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from penstock.service.default_models import CHAT
from penstock.service.program import CannotStart
from penstock.stack import ports
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.shapes import DEFAULT_LAYOUT, Layout
from penstock.stack.stack import TOKEN_FILE, Stack, run_stack
from rich.console import Console

TENANT = "development"
DEVELOPMENT_KEY = "psk-development"
ANNOUNCED = (
    "router",
    "cache",
    "limiter",
    "batcher",
    "inference-1",
    "inference-2",
    "generate",
    "scaler",
    "telemetry",
    "metrics",
)
"""The addresses that are printed once everything serves."""


async def up(
    home: Path, config_file: Path, console: Console, layout: Layout = DEFAULT_LAYOUT
) -> None:
    """Run the stack until SIGINT or SIGTERM; both are handled from the first moment on.

    SIGHUP is passed on to every service. `layout` says which services share a process.

    Raises:
        CannotStart: a port is in use, or a process refuses to start, now or later.
    """
    addresses = ports.documented()
    _require_free(addresses)
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_requested.set)
    log = LogStream(console)
    serving = asyncio.create_task(_serve(addresses, home, config_file, console, log, layout))
    stopping = asyncio.create_task(stop_requested.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        log("penstock", "stopping")
        serving.cancel()
        await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
    log("penstock", "stopped; no process is left")


def _require_free(addresses: Mapping[str, str]) -> None:
    if in_use := ports.in_use(addresses):
        names = ", ".join(f"{address} ({name})" for name, address in in_use.items())
        raise CannotStart(
            f"already in use: {names}; stop the process that listens there, perhaps another "
            "`make up` (`ss -ltnp` lists them)"
        )


async def _serve(
    addresses: Mapping[str, str],
    home: Path,
    config_file: Path,
    console: Console,
    log: LogStream,
    layout: Layout,
) -> NoReturn:
    """Start the stack, print where it answers, and run until a process gives up.

    Cancelling this returns once the last process has ended.

    Raises:
        CannotStart: a process refused to start, now or at a restart.
    """
    keys = {TENANT: DEVELOPMENT_KEY}
    async with run_stack(addresses, home, config_file, keys, log, layout, chat=True) as stack:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stack.supervisor.reload)
        await stack.wait_for_instances(DEFAULT_MODEL, stack.plan.instances, TENANT)
        await stack.wait_for_instances(CHAT, 1, TENANT)
        _announce(stack, console)
        raise CannotStart(await stack.supervisor.wait_for_failure())


def _announce(stack: Stack, console: Console) -> None:
    addresses = "  ".join(f"{name} [bold]{stack.addresses[name]}[/]" for name in ANNOUNCED)
    page = f"http://{stack.addresses['console']}/"
    token = stack.plan.home / TOKEN_FILE
    console.print(f"\n[bold green]ready[/]  {addresses}")
    console.print(f"       console [bold]{page}[/]")
    console.print(
        f"       API key [bold]{DEVELOPMENT_KEY}[/]   internal token in {token}   "
        "Ctrl-C stops everything\n"
    )
