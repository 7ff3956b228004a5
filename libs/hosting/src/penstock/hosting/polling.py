"""How the thread in which gRPC waits is scheduled beside the event loop of the process
(docs/decisions, polling). Linux only.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading

from penstock.hosting.pace import Pace
from penstock.service.clock import Clock

POLLER = "_poll_wrapper"
"""What grpc.aio calls the thread that waits for completions and wakes the event loop for each."""
FEW_CORES = 2
"""Up to so many, the poller runs on the loop's own core; with more it may run at the same time
elsewhere.
"""
FOLLOW_S, IDLE_FOLLOW_S = 0.1, 1.0
"""Between two looks at the loop's core, while the loop works and while it is idle."""

log = logging.getLogger(__name__)


def pollers() -> list[int]:
    """Ids of the polling threads, for scheduling calls; none before gRPC has begun, nor where such
    an id may be that of another process.
    """
    if sys.platform != "linux":
        return []
    return [
        thread.native_id
        for thread in threading.enumerate()
        if POLLER in thread.name and thread.native_id
    ]


async def poll_after_loop(nice: int, clock: Clock, few_cores: int = FEW_CORES) -> None:
    """Let the poller run when the event loop does not want the processor, so that what arrives
    meanwhile comes to the loop in one piece.

    Where the process has few cores the poller also keeps to the one on which the loop runs, until
    cancelled: waking a core that sleeps takes longer than the work. Call it from the loop's thread.
    Where the system forbids this, nothing changes.

    Args:
        nice: niceness of the poller, 1 to 19; 0 leaves everything as it is.
        clock: what the times between two looks are taken from.
        few_cores: the most that count as few.
    """
    found = pollers() if nice else []
    try:
        for native_id in found:
            os.setpriority(os.PRIO_PROCESS, native_id, nice)
        if found and len(os.sched_getaffinity(0)) <= few_cores:
            await _follow(found, clock)
    except OSError as error:
        log.info("the polling thread stays where it is: %s", error)


async def _follow(native_ids: list[int], clock: Clock) -> None:
    core_of_caller, last = ctypes.CDLL(None).sched_getcpu, -1
    pace = Pace(FOLLOW_S, IDLE_FOLLOW_S)
    while True:
        core = core_of_caller()
        if core != last:
            for native_id in native_ids:
                os.sched_setaffinity(native_id, {core})
            last = core
        before = clock.monotonic()
        await clock.sleep(pace.pause_s(before))
        pace.looked(clock.monotonic() - before)
