"""The interface to whatever runs the instances of a pool, and an actuator that runs nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.service.clock import Clock

POLL_S = 0.2
REPLACEMENT_SHARE = 0.5
"""Share of a notice's time that a replacement gets to start (a notice gives 30 s at GCP and Azure,
120 s at AWS). The rest is for draining.
"""

Drain = Callable[[str, str], Awaitable[None]]
"""Takes an instance's id and a reason; returns once it has nothing in flight or time is up."""


@dataclass(frozen=True)
class FleetStatus:
    """Instances of a pool.

    Args:
        wanted: instances asked for.
        ready: those of them that serve.
        is_observed: False where nobody counted and all asked for are assumed to serve.
    """

    wanted: int
    ready: int
    is_observed: bool = True


class Actuator(Protocol):
    """Starts and stops the instances of one pool."""

    async def status(self) -> FleetStatus:
        """Return what runs now.

        Raises:
            OSError: whoever runs the instances cannot be asked.
        """
        ...

    def on_demand_count(self, wanted: int) -> int:
        """Return how many of so many instances would not run on spot, as far as is known now."""
        ...

    async def scale(self, wanted: int) -> None:
        """Begin to change the number of instances to this; does not wait for it.

        Raises:
            OSError: whoever runs the instances cannot be asked or refuses.
        """
        ...

    async def replace(self, instance: str, remaining_s: float) -> bool:
        """Start a replacement of an instance that will be gone in `remaining_s` seconds.

        The instance is drained once the replacement serves or time is short; this does not wait
        for either.

        Returns:
            False where the instance is not one of these, or whoever runs it replaces it by itself.

        Raises:
            OSError: whoever runs the instances cannot be asked or refuses.
        """
        ...

    async def close(self) -> None:
        """Stop watching, and stop what would not go on by itself."""
        ...


async def wait_for_replacement(
    serves: Callable[[], Awaitable[bool]], clock: Clock, remaining_s: float
) -> None:
    """Wait until a replacement serves, at most for its share of the time that remains."""
    end_s = clock.monotonic() + REPLACEMENT_SHARE * remaining_s
    while clock.monotonic() < end_s and not await serves():
        await clock.sleep(POLL_S)


class DryRun:
    """Assumes that what was decided runs: for KEDA, which acts by itself, and for trials."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    async def status(self) -> FleetStatus:
        return FleetStatus(self._wanted, self._wanted, is_observed=False)

    def on_demand_count(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        self._wanted = wanted

    async def replace(self, instance: str, remaining_s: float) -> bool:
        return False

    async def close(self) -> None:
        return None
