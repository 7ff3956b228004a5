"""A spot fleet on a fake provider: lost machines are replaced elsewhere, on-demand machines stand
in and go, machines with a notice are replaced and drained before they are terminated.
"""

from __future__ import annotations

import pytest
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.offerings import Offering
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.provider import Machine
from penstock.scaler.spot.solver import SolverSettings
from penstock.testkit.clock import FakeClock

from .spot_fakes import FakeProvider

REGIONS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
POLICY = SpotPolicy(overprovision=1)


def four_offerings() -> list[Offering]:
    return [Offering(name, region) for name, region in REGIONS.items()]


class World:
    """A fleet whose machines start until `settle`, its provider, and what it drained."""

    def __init__(self, solver: SolverSettings | None = None) -> None:
        self.clock = FakeClock(1e6)
        prices = dict.fromkeys(REGIONS, 0.3)
        capacity = dict.fromkeys(REGIONS, 9)
        self.provider = FakeProvider(prices, capacity, serves_at_once=False)
        self.drained: list[str] = []
        self.fleet = self.make_fleet(solver)

    def make_fleet(self, solver: SolverSettings | None = None) -> SpotFleet:
        return SpotFleet(
            self.provider,
            four_offerings(),
            self.clock,
            POLICY,
            solver=solver,
            drain=self._drain,
        )

    async def _drain(self, machine: str, reason: str) -> None:
        self.drained.append(f"{machine} {reason}")

    async def settle(self) -> None:
        """Let all machines serve, and the fleet see them."""
        self.provider.finish_starts()
        await self.clock.advance(60.0)
        await self.fleet.status()
        await self.clock.advance(0.0)

    async def start(self, wanted: int) -> None:
        """Scale, and let all machines serve."""
        await self.fleet.scale(wanted)
        await self.settle()
        self.drained.clear()


async def test_on_demand_stands_in_while_spot_starts_and_then_goes() -> None:
    world = World()
    await world.fleet.scale(3)
    assert (world.provider.spot_count, len(world.provider.running)) == (4, 7)
    await world.settle()
    assert (world.provider.spot_count, len(world.provider.running)) == (4, 4)
    assert len(world.drained) == 3


async def test_machines_of_a_lost_zone_are_replaced_elsewhere() -> None:
    world = World()
    await world.start(3)
    lost = world.provider.running[0].offering
    world.provider.lose(lost)
    status = await world.fleet.status()
    assert world.provider.spot_count == 4
    assert all(one.offering != lost for one in world.provider.running)
    assert status.wanted == 3


async def test_without_spot_capacity_anywhere_all_runs_on_demand() -> None:
    world = World()
    world.provider.capacity = dict.fromkeys(REGIONS, 0)
    await world.start(3)
    assert [one.offering for one in world.provider.running] == ["", "", ""]
    assert (await world.fleet.status()).ready == 3


async def test_a_machine_with_a_notice_is_replaced_drained_and_then_terminated() -> None:
    world = World()
    await world.start(3)
    leaving = world.provider.running[0]
    assert await world.fleet.replace(leaving.id, 120.0)
    others = [one for one in world.provider.running if one.offering and one.id != leaving.id]
    assert len(others) == 4
    await world.clock.advance(0.0)
    # Three of four serve without it, as many as needed: it is drained at once.
    assert world.drained == [f"{leaving.id} spot_notice"]
    await world.clock.advance(119.0)
    assert leaving in world.provider.running
    await world.clock.advance(1.0)
    assert leaving not in world.provider.running


async def test_a_second_notice_and_one_about_an_unknown_machine_replace_nothing() -> None:
    world = World()
    await world.start(3)
    leaving = world.provider.running[0].id
    assert await world.fleet.replace(leaving, 120.0)
    assert not await world.fleet.replace(leaving, 120.0)
    assert not await world.fleet.replace("vm-99", 120.0)


@pytest.mark.parametrize("replacement_serves", [True, False])
async def test_a_needed_machine_is_drained_once_its_replacement_serves_or_at_half_its_time(
    replacement_serves: bool,
) -> None:
    world = World()
    await world.start(3)
    first, second = world.provider.running[:2]
    await world.fleet.replace(first.id, 120.0)
    await world.fleet.replace(second.id, 120.0)
    await world.clock.advance(20.0)
    assert world.drained == []
    if replacement_serves:
        world.provider.finish_starts()
        await world.fleet.status()
    await world.clock.advance(20.0)
    notices = [line for line in world.drained if "notice" in line]
    assert len(notices) == (2 if replacement_serves else 0)
    await world.clock.advance(21.0)
    assert {f"{one.id} spot_notice" for one in (first, second)} <= set(world.drained)
    await world.fleet.close()


async def test_a_new_fleet_takes_over_machines_and_stops_those_of_unknown_offerings() -> None:
    world = World()
    await world.start(3)
    world.provider.running.append(Machine("stranger", "z9", True))
    world.fleet = world.make_fleet()
    await world.start(3)
    assert world.provider.spot_count == 4
    assert "stranger" not in {one.id for one in world.provider.running}


async def test_the_loss_of_a_machine_of_an_earlier_fleet_is_learned_from() -> None:
    world = World()
    await world.start(3)
    world.fleet = world.make_fleet()
    await world.start(3)
    await world.clock.advance(7200.0)
    world.provider.lose(world.provider.running[0].offering)
    await world.fleet.status()
    assert sum(world.fleet.offerings.pooled_hazard.deaths) > 0


async def test_with_a_solver_the_fleet_follows_its_plan() -> None:
    world = World(SolverSettings())
    await world.start(3)
    assert world.fleet.placement.reason == "solver"
    assert (await world.fleet.status()).ready == 3
