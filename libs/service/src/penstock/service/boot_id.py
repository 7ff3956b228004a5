"""Which machine this process runs on, as its kernel says."""

from __future__ import annotations

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The running kernel's identifier, the same in all its containers; empty where there is none to
    read.
    """
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
