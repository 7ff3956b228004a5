"""The thread that gRPC waits in: how it stands to the others of the process (docs/decisions/0021-polling.md)."""

from __future__ import annotations

import logging
import os
import sys
import threading

POLLER = "_poll_wrapper"
"""What grpc.aio calls the thread that waits for completions and wakes the event loop for each."""

log = logging.getLogger(__name__)


def poll_after_others(nice: int) -> int:
    """Let the poller run only when the event loop does not want the processor: what arrives meanwhile comes to the loop in one piece.

    Args:
        nice: niceness of that thread, 0 (leave as it is) to 19.

    Returns:
        How many threads were changed: 0 before gRPC has made its poller, and on all systems but Linux, where niceness is a process's and
        a thread's id might be that of another process.
    """
    if nice == 0 or sys.platform != "linux":
        return 0
    pollers = [thread.native_id for thread in threading.enumerate() if POLLER in thread.name and thread.native_id]
    try:
        for native_id in pollers:
            os.setpriority(os.PRIO_PROCESS, native_id, nice)
    except OSError as error:
        log.info("the polling thread keeps its priority: %s", error)
        return 0
    return len(pollers)
