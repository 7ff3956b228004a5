"""A fleet on a simulated provider: losses are made good elsewhere, on demand stands in and goes,
notices drain first.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.scaler.spot.fleet import Machine, SpotFleet
from penstock.scaler.spot.offerings import Offering
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.solver import SolverSettings
from penstock.testkit.clock import FakeClock

REGIONS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}


def places() -> list[Offering]:
    return [Offering(name, region) for name, region in REGIONS.items()]


class Cloud:
    """Machines by zone with room that the test sets; those launched serve once `settle` was
    called.
    """

    def __init__(self) -> None:
        self.room = dict.fromkeys(REGIONS, 9)
        self.there: list[Machine] = []
        self.numbers = 0

    async def machines(self) -> list[Machine]:
        return list(self.there)

    async def prices(self) -> Mapping[str, float]:
        return dict.fromkeys(REGIONS, 0.3)

    async def launch(self, zone: str) -> bool:
        if zone and self.room[zone] <= sum(one.zone == zone for one in self.there):
            return False
        self.numbers += 1
        self.there.append(Machine(f"vm-{self.numbers}", zone, False))
        return True

    async def end(self, machine: str) -> None:
        self.there = [one for one in self.there if one.id != machine]

    def settle(self) -> None:
        self.there = [Machine(one.id, one.zone, True) for one in self.there]

    def take(self, zone: str) -> None:
        self.room[zone] = 0
        self.there = [one for one in self.there if one.zone != zone]

    def spot(self) -> int:
        return sum(bool(one.zone) for one in self.there)


def make(
    cloud: Cloud, solver: SolverSettings | None = None
) -> tuple[SpotFleet, FakeClock, list[str]]:
    drained: list[str] = []
    clock = FakeClock(1e6)

    async def drain(machine: str, reason: str) -> None:
        drained.append(f"{machine} {reason}")

    return SpotFleet(cloud, places(), clock, SpotPolicy(extra=1), solver, drain), clock, drained


async def settled(cloud: Cloud, fleet: SpotFleet, clock: FakeClock) -> None:
    cloud.settle()
    await clock.advance(60.0)
    await fleet.fleet()
    await clock.advance(0.0)


async def test_on_demand_bridges_the_start_and_then_goes() -> None:
    cloud = Cloud()
    fleet, clock, drained = make(cloud)
    await fleet.scale(3)
    assert cloud.spot() == 4 and len(cloud.there) == 7
    await settled(cloud, fleet, clock)
    assert cloud.spot() == 4 and len(cloud.there) == 4
    assert len(drained) == 3


async def test_a_lost_zone_is_made_good_elsewhere() -> None:
    cloud = Cloud()
    fleet, clock, _ = make(cloud)
    await fleet.scale(3)
    await settled(cloud, fleet, clock)
    gone = cloud.there[0].zone
    cloud.take(gone)
    await fleet.fleet()
    assert cloud.spot() == 4 and all(one.zone != gone for one in cloud.there)
    assert (await fleet.fleet()).wanted == 3


async def test_with_no_room_anywhere_on_demand_carries_all() -> None:
    cloud = Cloud()
    fleet, clock, _ = make(cloud)
    cloud.room = dict.fromkeys(REGIONS, 0)
    await fleet.scale(3)
    await settled(cloud, fleet, clock)
    assert [one.zone for one in cloud.there] == ["", "", ""]
    assert (await fleet.fleet()).ready == 3


async def test_one_that_will_go_is_replaced_and_then_drained() -> None:
    cloud = Cloud()
    fleet, clock, drained = make(cloud)
    await fleet.scale(3)
    await settled(cloud, fleet, clock)
    drained.clear()
    leaving = cloud.there[0]
    assert await fleet.replace(leaving.id, 120.0)
    assert not await fleet.replace(leaving.id, 120.0) and not await fleet.replace("vm-99", 120.0)
    assert sum(bool(one.zone) and one.id != leaving.id for one in cloud.there) == 4
    await clock.advance(0.0)
    assert drained == [f"{leaving.id} spot_notice"], (
        "three of four serve: nothing is missing, so it need not wait"
    )
    await clock.advance(119.0)
    assert leaving in cloud.there
    await clock.advance(1.0)
    assert leaving not in cloud.there, "nobody took it: it is not paid for any longer"


async def test_one_that_is_missed_serves_until_its_replacement_does_or_half_its_time_is_over() -> (
    None
):
    for comes in (True, False):
        cloud = Cloud()
        fleet, clock, drained = make(cloud)
        await fleet.scale(3)
        await settled(cloud, fleet, clock)
        drained.clear()
        first, second = cloud.there[:2]
        await fleet.replace(first.id, 120.0)
        await fleet.replace(second.id, 120.0)
        await clock.advance(20.0)
        assert drained == []
        if comes:
            cloud.settle()
            await fleet.fleet()
        await clock.advance(20.0)
        assert len([line for line in drained if "notice" in line]) == (2 if comes else 0)
        await clock.advance(21.0)
        assert {f"{one.id} spot_notice" for one in (first, second)} <= set(drained)
        await fleet.close()


async def test_machines_of_an_earlier_scaler_and_of_a_zone_no_longer_used_are_found() -> None:
    cloud = Cloud()
    before, clock, _ = make(cloud)
    await before.scale(3)
    await settled(cloud, before, clock)
    cloud.there.append(Machine("stranger", "z9", True))
    fleet = SpotFleet(cloud, places(), clock, SpotPolicy(extra=1))
    await fleet.scale(3)
    await settled(cloud, fleet, clock)
    assert cloud.spot() == 4 and "stranger" not in {one.id for one in cloud.there}
    zone = cloud.there[0].zone
    await clock.advance(7200.0)
    cloud.take(zone)
    await fleet.fleet()
    assert fleet.zones.pooled.deaths != [0.0] * 8


async def test_the_solver_runs_beside_the_rule() -> None:
    cloud = Cloud()
    fleet, clock, _ = make(cloud, SolverSettings())
    await fleet.scale(3)
    await settled(cloud, fleet, clock)
    assert fleet.placement.reason == "solver"
    assert (await fleet.fleet()).ready == 3
