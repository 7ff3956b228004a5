"""How many CPUs this process may use: what its container allows, not what the machine has.

A container's share is a quota of its cgroup: so many microseconds of CPU time in each period. More
threads than that only make each other wait until the next period. A quota of a cgroup holds for
those below it, so the smallest one on the way up counts (cgroup v2: `cpu.max`; v1:
`cpu.cfs_quota_us`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from penstock.service.purity import pure


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use, at least 1: by its cgroup's quota, its affinity, and the
    machine.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    return smallest_share(_quotas(root), len(os.sched_getaffinity(0)), os.cpu_count() or 1)


@pure
def smallest_share(quotas: Iterator[float], *counts: int) -> int:
    """The smallest of quotas and counts in whole CPUs, at least 1.

    Part of a CPU is left over for the thread that serves the network.
    """
    return max(1, math.floor(min([*quotas, *counts])))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's cgroup and of those above it, in CPUs."""
    groups = _read(root / "proc/self/cgroup") or ""
    mounts = root / "sys/fs/cgroup"
    for line in groups.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for group in _up_from(path):
            if not controllers:
                yield from _quota_v2(mounts / group)
            elif "cpu" in controllers.split(","):
                yield from _quota_v1(mounts / "cpu" / group)


def _up_from(path: str) -> list[str]:
    """The group and those above it, as paths below the mount.

    Where a container sees the machine's path, only its own root is there; the others are not found.
    """
    below = PurePosixPath(path.lstrip("/"))
    return [str(group) for group in [below, *below.parents]]


def _quota_v2(folder: Path) -> Iterator[float]:
    quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        yield int(quota) / int(period)


def _quota_v1(folder: Path) -> Iterator[float]:
    quota = (_read(folder / "cpu.cfs_quota_us") or "").strip()
    period = (_read(folder / "cpu.cfs_period_us") or "").strip()
    if quota.isdigit() and period.isdigit():  # -1: no quota
        yield int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
