"""How often a task looks that watches its process: often while the process works, seldom while it
is idle, so that watching an idle process costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.service.clock import until_tick_s
from penstock.service.purity import pure

WORKING_SHARE = 0.02
"""Share of a core from which on a process works: watching alone takes a tenth of it."""

CpuSeconds = Callable[[], float]


class Pace:
    """The pauses between looks, in seconds. Owner: the task that looks.

    Args:
        working_s: while the process works.
        idle_s: while it is idle, between ticks that all idle processes share.
        cpu_s: CPU seconds used so far, by default of the calling thread.
    """

    def __init__(
        self, working_s: float, idle_s: float, cpu_s: CpuSeconds = time.thread_time
    ) -> None:
        self._working_s, self._idle_s = working_s, idle_s
        self._read_cpu_s = cpu_s
        self._cpu_s = cpu_s()
        self._works = True

    def pause_s(self, now_s: float) -> float:
        """The pause that comes now; at first that of a process that works. `now_s` is monotonic."""
        return self._working_s if self._works else until_tick_s(now_s, self._idle_s)

    def looked(self, elapsed_s: float) -> None:
        """Take note of a look, so many seconds after the one before."""
        cpu_s = self._read_cpu_s()
        self._works = is_working(cpu_s - self._cpu_s, elapsed_s)
        self._cpu_s = cpu_s


@pure
def is_working(cpu_s: float, elapsed_s: float) -> bool:
    """Whether CPU time within a time is more than an idle process takes."""
    return cpu_s > WORKING_SHARE * elapsed_s
