"""Ports of this machine that are free, and stay so until the process that asked listens on them.

The kernel hands out a range of its own (`ip_local_port_range` of ip(7)) to connections and to port
0 at any moment, so a port of that range may be taken as soon as it was found free. The ports here
lie outside of it, in blocks. A process claims a block by keeping the block's first port bound, so
no two processes draw from the same one.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque
from pathlib import Path

LOOPBACK = "127.0.0.1"
KERNEL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
KERNEL_RANGE = (32_768, 60_999)
"""What Linux has by default (ip(7)), taken where the file is missing. On macOS, which has no such
file, the range begins at 49,152, so what lies below this one is outside of that one too.
"""
LOWEST, HIGHEST = 10_240, 65_535
"""Lower ports are those that services are known by, Penstock's documented ones among them."""
BLOCK = 128
"""Ports of a block: several stacks of some twenty."""


def free_port() -> int:
    """A port that is free, and that no other process is given while this one lives.

    Raises:
        OSError: other processes have claimed every block.
    """
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """That many ports, no two the same; see `free_port`."""
    return _ports.take(count)


def free_address() -> str:
    """An address of loopback on such a port; see `free_port`."""
    return free_addresses(1)[0]


def free_addresses(count: int) -> list[str]:
    """That many addresses of loopback, no two the same; see `free_port`."""
    return [f"{LOOPBACK}:{port}" for port in free_ports(count)]


def can_listen(host: str, port: int) -> bool:
    """Whether nobody listens on this address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def blocks(kernel_range: tuple[int, int]) -> list[range]:
    """The blocks outside the kernel's range; where it leaves none, those of the whole."""
    low, high = kernel_range
    spans = [(LOWEST, min(low - 1, HIGHEST)), (max(high + 1, LOWEST), HIGHEST)]
    return _split(spans) or _split([(LOWEST, HIGHEST)])


def kernel_range(file: Path = KERNEL_RANGE_FILE) -> tuple[int, int]:
    """First and last port that the kernel hands out itself."""
    try:
        low, high = file.read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return KERNEL_RANGE


def _split(spans: list[tuple[int, int]]) -> list[range]:
    return [
        range(first, first + BLOCK)
        for start, end in spans
        for first in range(start, end - BLOCK + 2, BLOCK)
    ]


class _ClaimedPorts:
    """The blocks of this process. Owner of the sockets that claim them, until the process ends."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []
        self._ports: deque[int] = deque()

    def take(self, count: int) -> list[int]:
        """The next ports on which nobody listens; those given longest ago come again first."""
        taken: list[int] = []
        untried = len(self._ports)
        while len(taken) < count:
            if not untried:
                claimed = self._claim_block()
                self._ports.extendleft(reversed(claimed))
                untried = len(claimed)
            untried -= 1
            port = self._ports[0]
            self._ports.rotate(-1)
            if can_listen(LOOPBACK, port):
                taken.append(port)
        return taken

    def leave_to_parent(self) -> None:
        """Give up what a fork has copied."""
        for claim in self._claims:
            claim.close()
        self._claims.clear()
        self._ports.clear()

    def _claim_block(self) -> range:
        candidates = blocks(kernel_range())
        random.shuffle(candidates)
        for block in candidates:
            claim = socket.socket()
            try:
                claim.bind((LOOPBACK, block[0]))
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            return block[1:]
        raise OSError(
            errno.EADDRNOTAVAIL,
            "no block of ports is free on this machine: end other stacks and tests, or narrow "
            "net.ipv4.ip_local_port_range",
        )


_ports = _ClaimedPorts()
os.register_at_fork(after_in_child=_ports.leave_to_parent)
