"""Memory of large blocks, given back to the system as soon as it is free."""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 1 << 20
"""Blocks from this on are mapped each by itself."""
M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""


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
