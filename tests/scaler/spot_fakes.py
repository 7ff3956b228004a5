"""A provider of spot machines in memory, and a short way to ask for one placement."""

from __future__ import annotations

import math
from collections.abc import Mapping

from penstock.scaler.spot.offerings import Offerings
from penstock.scaler.spot.placement_rule import (
    MachineCount,
    PlacementDecision,
    SpotPolicy,
    SpotState,
    decide_placement,
)
from penstock.scaler.spot.provider import Machine
from penstock.scaler.spot.solver import Plan

DEFAULT_POLICY = SpotPolicy()


class FakeProvider:
    """Machines in memory; see `SpotProvider`.

    Attributes:
        capacity: machines that an offering has room for; unlimited where it is missing.
        running: machines that were launched and have not gone, the oldest first.
        requested: the offering of every launch that was tried.

    Args:
        serves_at_once: False lets machines start until `finish_starts`.
    """

    def __init__(
        self,
        prices: Mapping[str, float],
        capacity: Mapping[str, int] | None = None,
        serves_at_once: bool = True,
    ) -> None:
        self.capacity = dict(capacity or {})
        self.running: list[Machine] = []
        self.requested: list[str] = []
        self._prices = prices
        self._serves_at_once = serves_at_once

    async def machines(self) -> list[Machine]:
        return list(self.running)

    async def prices(self) -> Mapping[str, float]:
        return self._prices

    async def launch(self, offering: str) -> bool:
        self.requested.append(offering)
        taken = sum(one.offering == offering for one in self.running)
        if offering and taken >= self.capacity.get(offering, math.inf):
            return False
        name = f"vm-{len(self.requested)}"
        self.running.append(Machine(name, offering, self._serves_at_once))
        return True

    async def terminate(self, machine: str) -> None:
        self.running = [one for one in self.running if one.id != machine]

    def finish_starts(self) -> None:
        """Let every machine serve."""
        self.running = [Machine(one.id, one.offering, True) for one in self.running]

    def lose(self, offering: str) -> None:
        """Take away all machines of an offering, and its capacity."""
        self.capacity[offering] = 0
        self.running = [one for one in self.running if one.offering != offering]

    @property
    def spot_count(self) -> int:
        """How many spot machines run."""
        return sum(bool(one.offering) for one in self.running)


def place(
    need: int,
    machines: Mapping[str, MachineCount],
    offerings: Offerings,
    policy: SpotPolicy = DEFAULT_POLICY,
    now_s: float = 0.0,
    plan: Plan | None = None,
    shortage_s: float = math.inf,
) -> PlacementDecision:
    """The placement that is decided in this state."""
    state = SpotState(need, machines, offerings, now_s, shortage_s)
    return decide_placement(state, policy, plan)
