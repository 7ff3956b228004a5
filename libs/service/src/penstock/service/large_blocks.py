"""Memory that is given back to the system: large blocks as soon as they are free, and once what a
start has left behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys

LARGE_BYTES = 1 << 20
"""Blocks from this on are mapped each by itself."""
M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""
YOUNG = 1
"""Generations of the collector up to this one: a few milliseconds, whatever the process holds."""
COLLECT_AFTER_S = 0.02


def give_back_large_blocks() -> bool:
    """Let the allocator map large blocks each by itself; whether it can be told so (glibc).

    By default glibc raises its threshold to the largest block that was ever freed. Requests of some
    megabytes then lie in the heap among small objects that stay, and a burst of them is never given
    back.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))


def settle_after_start() -> None:
    """Take what is there when serving begins for what stays: no collection need scan it, and what
    starting has freed goes back to the system (malloc_trim(3), glibc).
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def collect_soon() -> None:
    """Collect young garbage in a moment, because a large request has ended.

    What has failed may be kept by a cycle of exceptions and frames until the collector comes by,
    which counts objects, not bytes: ten failed requests of some megabytes are nothing to it.
    """
    asyncio.get_running_loop().call_later(COLLECT_AFTER_S, gc.collect, YOUNG)
