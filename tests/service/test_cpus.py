"""CPUs by the quota of a container, in both versions of cgroups, and by affinity."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from penstock.service.cpus import smallest_share, usable_cpus

pytestmark = pytest.mark.standard_case(34)

MANY = "9600000 100000"
HOST = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod7/box\n",
                "sys/fs/cgroup/kubepods/pod7/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/kubepods/pod7/box/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": MANY}, HOST),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, HOST),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            HOST,
        ),
        ({"proc/self/cgroup": "garbage\n"}, HOST),
        ({}, HOST),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(
    files: dict[str, str], cpus: int, tmp_path: Path
) -> None:
    assert usable_cpus(write(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    ("quotas", "counts", "cpus"),
    [
        ([3.5], (8, 16), 3),
        ([], (4, 16), 4),
        ([0.2], (8, 8), 1),
        ([6.0, 2.0], (8, 8), 2),
        ([9.0], (2, 8), 2),
    ],
)
def test_a_share_is_whole_and_at_least_one(
    quotas: list[float], counts: tuple[int, ...], cpus: int
) -> None:
    assert smallest_share(iter(quotas), *counts) == cpus


def test_affinity_bounds_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
