"""Ports that nobody else is given: not the kernel for its connections, and no other process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import penstock.service.free_ports as free_ports_module
import pytest
from penstock.service.free_ports import (
    BLOCK,
    HIGHEST,
    KERNEL_RANGE,
    LOOPBACK,
    LOWEST,
    blocks,
    free_port,
    free_ports,
    kernel_range,
)

TAKE = """
import json, sys
from penstock.service.free_ports import free_ports
print(json.dumps(free_ports(20)), flush=True)
sys.stdin.read()
"""


def test_ports_are_of_the_blocks_around_the_kernels_range() -> None:
    outside = {port for block in blocks(kernel_range()) for port in block[1:]}
    assert set(free_ports(BLOCK + 1)) <= outside


def test_a_port_on_which_somebody_listens_is_left_out() -> None:
    given = set(free_ports(BLOCK))
    with socket.create_server((LOOPBACK, free_port())) as server:
        again = set(free_ports(2 * BLOCK))
        assert server.getsockname()[1] not in again
    assert given & again, "ports come again once all were given"


def test_processes_that_live_at_once_get_different_ports() -> None:
    command = [sys.executable, "-c", TAKE]
    holders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    given = []
    for holder in holders:
        assert holder.stdout is not None
        given += json.loads(holder.stdout.readline())
    for holder in holders:
        holder.communicate("")
    assert len(set(given)) == len(given) == 80


def test_without_a_free_block_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(free_ports_module, "blocks", lambda _: [range(taken, taken + BLOCK)])
        with pytest.raises(OSError, match="end other stacks"):
            free_ports_module.free_ports(1_000)


@pytest.mark.parametrize(
    ("of_kernel", "first", "last"),
    [
        ((32_768, 60_999), LOWEST, HIGHEST),
        ((10_000, 60_000), 60_001, HIGHEST),
        ((49_152, 65_535), LOWEST, 49_151),
        ((1_024, 65_535), LOWEST, HIGHEST),
    ],
    ids=["default", "only above", "only below", "everything"],
)
def test_blocks_lie_around_the_kernels_range(
    of_kernel: tuple[int, int], first: int, last: int
) -> None:
    found = blocks(of_kernel)
    assert found[0][0] == first
    assert last - BLOCK < found[-1][-1] <= last
    whole = of_kernel == (1_024, 65_535)
    assert whole or not any(of_kernel[0] <= port <= of_kernel[1] for b in found for port in b)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("15000\t20000\n", (15_000, 20_000)), ("nonsense", KERNEL_RANGE), (None, KERNEL_RANGE)],
    ids=["read", "unreadable", "no such file"],
)
def test_the_kernels_range_is_read_where_it_can_be(
    content: str | None, expected: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "range"
    if content is not None:
        file.write_text(content)
    assert kernel_range(file) == expected
