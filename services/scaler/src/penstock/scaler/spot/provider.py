"""The interface to whoever provides spot machines: a cloud, or a simulated market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Machine:
    """One machine.

    Args:
        offering: name of its offering; empty for a machine on demand.
        is_serving: whether it serves requests.
    """

    id: str
    offering: str
    is_serving: bool


class SpotProvider(Protocol):
    """Launches and terminates machines. Each call raises OSError where it cannot be asked."""

    async def machines(self) -> list[Machine]:
        """Return the machines that were launched and have not gone, the oldest first."""
        ...

    async def prices(self) -> Mapping[str, float]:
        """Return the price of one wanted instance by offering, over the on-demand price."""
        ...

    async def launch(self, offering: str) -> bool:
        """Launch one machine of an offering, or on demand where the name is empty.

        Returns:
            False where there is no capacity.
        """
        ...

    async def terminate(self, machine: str) -> None:
        """Terminate the machine with this id."""
        ...
