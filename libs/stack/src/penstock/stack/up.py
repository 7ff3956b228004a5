"""`make up`: the whole stack in the foreground, with one log, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from penstock.service.program import CannotStart
from penstock.stack import ports
from penstock.stack.configuration import accepts_key
from penstock.stack.following import Follower, load_config
from penstock.stack.log import LogStream
from penstock.stack.shapes import DEFAULT_LAYOUT, Layout
from penstock.stack.stack import TOKEN_FILE, WholeStack, run_stack
from rich.console import Console

TENANT = "development"
DEVELOPMENT_KEY = "psk-development"
ANNOUNCED = (
    "router",
    "cache",
    "limiter",
    "batcher",
    "scaler",
    "telemetry",
    "metrics",
)
"""The addresses that are printed once everything serves, before those of the instances."""


async def up(
    home: Path,
    config_file: Path,
    console: Console,
    layout: Layout = DEFAULT_LAYOUT,
    *,
    tls: bool = False,
) -> None:
    """Run the stack until SIGINT or SIGTERM; both are handled from the first moment on.

    The configuration is followed: see `following`. `layout` says which services share a process,
    `tls` whether they speak TLS.

    Raises:
        BadConfig: names every fault of the configuration.
        CannotStart: a port is in use, or a process refuses to start.
    """
    load_config(config_file, home)
    addresses = ports.documented()
    _require_free(addresses)
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_requested.set)
    log = LogStream(console)
    serving = asyncio.create_task(_serve(addresses, home, config_file, console, log, layout, tls))
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
    tls: bool,
) -> NoReturn:
    """Start the stack, print where it answers, and run until a process gives up.

    Cancelling this returns once the last process has ended.

    Raises:
        CannotStart: a process refused to start.
    """
    keys = {TENANT: os.environ.get("PENSTOCK_KEY", DEVELOPMENT_KEY)}
    running = run_stack(addresses, home, config_file, keys, log, layout, chat=True, tls=tls)
    async with running as stack:
        await stack.wait_for_fleet()
        _announce(stack, console)
        follower = Follower(stack.plan, stack.config, stack.supervisor, stack.fleet, log)
        _read_again_on_sighup(follower)
        raise CannotStart(await _failure_while(follower, stack))


async def _failure_while(follower: Follower, stack: WholeStack) -> str:
    """Follow the configuration until a process gives up; returns why it did."""
    following = asyncio.create_task(follower.run())
    failing = asyncio.create_task(stack.supervisor.wait_for_failure())
    try:
        await asyncio.wait([following, failing], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        return failing.result()
    finally:
        following.cancel()
        failing.cancel()
        await asyncio.wait([following, failing])


def _read_again_on_sighup(follower: Follower) -> None:
    """SIGHUP means: read the configuration again. When the terminal is closed it means: stop."""
    has_terminal = sys.stdin.isatty()

    def on_sighup() -> None:
        if has_terminal and not sys.stdin.isatty():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            follower.read_again()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_sighup)


def _announce(stack: WholeStack, console: Console) -> None:
    places = {name: stack.addresses[name] for name in ANNOUNCED} | dict(stack.fleet.addresses)
    addresses = "  ".join(f"{name} [bold]{address}[/]" for name, address in places.items())
    scheme = "http" if stack.tls is None else "https"
    page = f"{scheme}://{stack.addresses['console']}/"
    base = f"{scheme}://{stack.addresses['edge']}/v1"
    token = stack.plan.home / TOKEN_FILE
    console.print(f"\n[bold green]ready[/]  {addresses}")
    console.print(f"       OpenAI and Anthropic clients [bold]{base}[/]   console [bold]{page}[/]")
    has_key = accepts_key(stack.plan.config_file, DEVELOPMENT_KEY)
    key = f"API key [bold]{DEVELOPMENT_KEY}[/]" if has_key else "API keys of your configuration"
    if stack.plan.identities is not None and stack.plan.identities.certificates is not None:
        console.print(f"       TLS by the certificates in {stack.plan.identities.certificates}")
    console.print(f"       {key}   internal token in {token}   Ctrl-C stops everything\n")
