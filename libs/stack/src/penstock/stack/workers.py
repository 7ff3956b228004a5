"""Several cells behind one address, each a process of its own (`PENSTOCK_WORKERS`).

All bind the same ports with SO_REUSEPORT, and the kernel gives each connection to one of them. Each
has a name, and an address that is its own, at which the others reach its batcher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.service.program import CannotStart
from penstock.stack.process import Program

MAX_WORKERS = 64


@dataclass(frozen=True)
class Workers:
    """How many cells there are, and where each is reached alone.

    Attributes:
        number: 1 stands for a cell that has its addresses to itself.
        sockets: folder of their unix sockets.
        first_address: `host:port` of the first cell's own address, the next cell has the next port;
            for cells that cells of other machines have to reach. Empty: unix sockets.
    """

    number: int
    sockets: Path
    first_address: str = ""

    def names(self) -> tuple[str, ...]:
        """What the cells are called."""
        return tuple(f"cell-{number}" for number in range(1, self.number + 1))

    def addresses(self) -> tuple[str, ...]:
        """Each cell's own address; none where there is one cell."""
        if self.number == 1:
            return ()
        if not self.first_address:
            return tuple(f"unix:{self.sockets / name}.sock" for name in self.names())
        host, _, first = self.first_address.rpartition(":")
        return tuple(f"{host}:{int(first) + number}" for number in range(self.number))

    def programs(self, cell: Program) -> tuple[Program, ...]:
        """The cells, from what one alone would be."""
        one = replace(cell, env={**cell.env, "PENSTOCK_WORKERS": "1"})
        named = zip(self.names(), self.addresses(), strict=False)
        return tuple(_named(one, name, address) for name, address in named) or (one,)


def _named(cell: Program, name: str, address: str) -> Program:
    own = {"PENSTOCK_CELL": name, "PENSTOCK_CELL_ADDRESS": address}
    return replace(cell, name=name, env={**cell.env, **own}, address=address)


def number_of_workers(environment: Mapping[str, str]) -> int:
    """`PENSTOCK_WORKERS`, 1 where it is not set.

    Raises:
        CannotStart: it is no number from 1 to 64.
    """
    return checked_number(environment.get("PENSTOCK_WORKERS", "1"))


def checked_number(value: str) -> int:
    """A number of cells; raises CannotStart."""
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_WORKERS):
        raise CannotStart(f"PENSTOCK_WORKERS: {value!r} is no number from 1 to {MAX_WORKERS}")
    return int(value)


def first_address(environment: Mapping[str, str]) -> str:
    """`PENSTOCK_WORKERS_LISTEN`, or an empty string.

    Raises:
        CannotStart: it is no `host:port`.
    """
    address = environment.get("PENSTOCK_WORKERS_LISTEN", "")
    host, _, port = address.rpartition(":")
    if address and not (host and port.isascii() and port.isdigit() and int(port)):
        raise CannotStart(f"PENSTOCK_WORKERS_LISTEN: {address!r} is no host:port")
    return address
