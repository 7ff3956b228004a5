"""`PENSTOCK_WORKERS=2 python -m penstock.stack cell …`: a process that runs several cells and
answers no calls itself. It imports neither gRPC nor a service.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from penstock.service.program import CannotStart, run_main
from penstock.service.settings import ServiceSettings, load_settings
from penstock.service.socket_paths import socket_folder
from penstock.stack.process import Program, python_module
from penstock.stack.shapes import CELL
from penstock.stack.supervisor import LOG_NAME, Supervisor
from penstock.stack.workers import Workers, first_address

OWNER, REGISTRY = "batcher", "router"
STOP_MARGIN_S = 5.0
"""What a cell gets beside its own grace before it is killed."""


def run_workers(services: str, number: int) -> int:
    """Run a cell of these services several times until told to stop; returns the exit status.

    SIGTERM stops them all with their own grace, SIGHUP is passed on, one that dies is started
    again.

    Raises:
        CannotStart: these services cannot run several times.
        BadConfig: a variable that all services share is wrong.
    """
    _require_shareable([name.strip() for name in services.split(",")])
    settings = load_settings(ServiceSettings)
    grace_s = settings.drain_s + settings.grace_s + STOP_MARGIN_S
    command = (*python_module("penstock.stack"), "cell", services)
    with socket_folder() as sockets:
        workers = Workers(number, sockets, first_address(os.environ))
        programs = workers.programs(Program("cell", command, reloads=True))
        return run_main("cell", _until_stopped(programs, grace_s))


def _require_shareable(services: Sequence[str]) -> None:
    single = sorted(set(services) - set(CELL))
    if single:
        raise CannotStart(
            f"{single[0]!r} cannot run several times behind one address, only {', '.join(CELL)} "
            "can; unset PENSTOCK_WORKERS"
        )
    if OWNER in services and REGISTRY not in services:
        raise CannotStart(
            "several batchers behind one address need a router each: an instance's queue is in one "
            "of them; add router, or unset PENSTOCK_WORKERS"
        )


async def _until_stopped(programs: Sequence[Program], grace_s: float) -> None:
    """Run the programs until SIGTERM or SIGINT, then stop them all at the same time.

    Raises:
        CannotStart: one of them refused to start.
    """
    supervisor, stop = Supervisor(_print, _listens), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    serving = asyncio.create_task(_serve(supervisor, tuple(programs)))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        serving.cancel()
        stopping.cancel()
        await asyncio.gather(*(supervisor.stop_one(each.name, grace_s) for each in programs))


async def _serve(supervisor: Supervisor, programs: tuple[Program, ...]) -> None:
    await supervisor.start(programs)
    raise CannotStart(await supervisor.wait_for_failure())


async def _listens(program: Program) -> bool:
    """Whether something accepts connections at the cell's own address."""
    address = program.address
    try:
        if address.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


def _print(name: str, line: str) -> None:
    """A cell's own line as it is, which says who writes it; the supervisor's after its name."""
    print(f"{name}: {line}" if name == LOG_NAME else line, file=sys.stderr, flush=True)
