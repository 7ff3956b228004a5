"""CPU, memory and threads of this process, and the machine it runs on, as the kernel says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

STATM = Path("/proc/self/statm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Gauge(NamedTuple):
    """A metric that is read when it is exported."""

    name: str
    unit: str
    description: str
    read: Callable[[], float]


class ProcessMetrics:
    """Gauges with OpenTelemetry's names for processes."""

    def __init__(self) -> None:
        self._read_at_s = time.monotonic()
        self._cpu_s = time.process_time()

    def cpu_utilization(self) -> float:
        """CPUs used since the last call of this method, on average; 1.0 is one CPU fully used."""
        now_s = time.monotonic()
        cpu_s = time.process_time()
        utilization = (cpu_s - self._cpu_s) / max(now_s - self._read_at_s, 1e-9)
        self._read_at_s = now_s
        self._cpu_s = cpu_s
        return utilization

    def gauges(self) -> Iterator[Gauge]:
        """The gauges that this machine has numbers for."""
        yield Gauge(
            "process.cpu.utilization",
            "1",
            "Processors used; 1 is one of them all the time.",
            self.cpu_utilization,
        )
        yield Gauge("process.thread.count", "{thread}", "Threads of Python's own.", _threads)
        if STATM.exists():
            yield Gauge("process.memory.usage", "By", "Memory that is resident.", resident_bytes)


def _threads() -> float:
    return float(threading.active_count())


def resident_bytes() -> float:
    """Resident memory of this process, in bytes."""
    pages = int(STATM.read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def boot_id() -> str:
    """Which machine this is: the running kernel's identifier, the same in all its containers; empty
    where there is none to read.
    """
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
