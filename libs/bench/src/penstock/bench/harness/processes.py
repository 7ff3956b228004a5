"""Processes for the length of a benchmark, and what they used of the machine."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
from penstock.service.tls_files import TlsSource
from penstock.stack.log import LogStream
from penstock.stack.readiness import is_ready
from penstock.stack.supervisor import Supervisor
from rich.console import Console


def home_folder() -> Path:
    """The folder with the built models: $PENSTOCK_HOME, else .penstock."""
    return Path(os.environ.get("PENSTOCK_HOME", ".penstock")).resolve()


@contextlib.asynccontextmanager
async def supervised(tls: TlsSource | None = None) -> AsyncIterator[Supervisor]:
    """A supervisor that logs nothing; everything that it started is stopped at the end.

    `tls` is a certificate with which to ask for readiness; None for plaintext.
    """
    supervisor = Supervisor(LogStream(Console(quiet=True)), functools.partial(is_ready, tls=tls))
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def program_of(pid: int) -> str:
    """What a process runs: the last word of its command, without the folders of a path, or its
    program where that is an option.
    """
    words = " ".join(psutil.Process(pid).cmdline()).split()
    last = words[0] if words[-1].startswith("-") else words[-1]
    return Path(last).name.removeprefix("penstock.")


def proportional_mb(pid: int) -> float:
    """Memory of a process in megabytes, shared pages divided among those who share them (PSS)."""
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6


def accepted_connections(pid: int, address: str) -> int:
    """Connections to `host:port` that a process has accepted and not closed."""
    port = int(address.rpartition(":")[2])
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in psutil.Process(pid).net_connections("tcp")
    )


def mapped_mb(pid: int, file: Path) -> float:
    """A process's part of the pages of a file that it has mapped, in megabytes (PSS): over all
    processes, each page counts once however many map it.
    """
    maps = psutil.Process(pid).memory_maps(grouped=True)
    return sum(each.pss for each in maps if each.path == str(file.resolve())) / 1e6


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6
