"""What this process takes of its machine: processor, memory, threads.

Reads the kernel's own counts; decides nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STATM = Path("/proc/self/statm")
Gauge = tuple[str, str, str, Callable[[], float]]


class ProcessMetrics:
    """The figures by their OpenTelemetry names; those that the machine does not tell are left
    out.
    """

    def __init__(self) -> None:
        self._read_s = time.monotonic()
        self._used_s = time.process_time()

    def utilization(self) -> float:
        """Processors used since it was last asked: 1.0 is one of them all the time."""
        now, used = time.monotonic(), time.process_time()
        share = (used - self._used_s) / max(now - self._read_s, 1e-9)
        self._read_s, self._used_s = now, used
        return share

    def gauges(self) -> Iterator[Gauge]:
        """(name, unit, description, how to read it)."""
        yield (
            "process.cpu.utilization",
            "1",
            "Processors used; 1 is one of them all the time.",
            self.utilization,
        )
        yield (
            "process.thread.count",
            "{thread}",
            "Threads of Python's own.",
            lambda: float(threading.active_count()),
        )
        if STATM.exists():
            yield "process.memory.usage", "By", "Memory that is resident.", resident_bytes


def resident_bytes() -> float:
    """Bytes of this process in memory."""
    return float(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
