"""Several instance types in a pool: what each does counts, in the rule and in the solver, and they
are spread over zones and types.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from penstock.scaler.spot.fleet import Machine, SpotFleet
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import MachineCount, SpotPolicy, place
from penstock.scaler.spot.solver import Plan, SolverOffering, SolverSettings, solve
from penstock.testkit.clock import FakeClock

SIZES = {"small": 1.0, "large": 3.0}


def pool() -> list[Offering]:
    return [
        Offering(f"{zone}/{kind}", zone[0], zone, kind, size)
        for zone in ("a1", "b1", "c1")
        for kind, size in SIZES.items()
    ]


def does(counts: Mapping[str, int]) -> float:
    return sum(count * SIZES[name.partition("/")[2]] for name, count in counts.items())


def in_zone(counts: Mapping[str, int], zone: str) -> float:
    return does({name: count for name, count in counts.items() if name.startswith(zone)})


def test_large_machines_count_for_what_they_do() -> None:
    zones = Offerings(pool())
    placed = place(
        6,
        {"a1/large": MachineCount(ready=1), "b1/large": MachineCount(ready=1)},
        zones,
        SpotPolicy(extra=0),
        0.0,
    )
    assert (dict(placed.launch), dict(placed.stop), placed.on_demand) == ({}, {}, 0)
    short = place(
        6,
        {"a1/large": MachineCount(ready=1), "b1/small": MachineCount(ready=1)},
        zones,
        SpotPolicy(extra=0),
        0.0,
    )
    assert does(short.launch) >= 2 and short.on_demand == 2


def test_instances_are_spread_over_zones_whatever_the_type() -> None:
    zones = Offerings(pool())
    for name in zones.by_name:
        zones.priced(name, 0.15 if name.endswith("large") else 0.3, 1.0)
    launch = place(8, {}, zones, SpotPolicy(extra=1), 0.0).launch
    assert does(launch) >= 9
    assert all(0 < in_zone(launch, zone) <= 5 for zone in ("a1", "b1", "c1"))
    assert len({name.partition("/")[2] for name in launch}) == 2, (
        "both types, for one may run out in all zones"
    )


def test_a_small_need_is_not_met_by_a_large_machine_that_idles() -> None:
    assert dict(place(1, {}, Offerings(pool()), SpotPolicy(extra=0), 0.0).launch).keys() <= {
        f"{z}1/small" for z in "abc"
    }


def test_a_large_machine_is_kept_while_what_is_left_would_not_do() -> None:
    zones = Offerings(pool())
    held = {"a1/large": MachineCount(ready=1), "b1/small": MachineCount(ready=2)}
    assert dict(place(4, held, zones, SpotPolicy(extra=0), 0.0).stop) == {"b1/small": 1}
    assert dict(place(3, held, zones, SpotPolicy(extra=0), 0.0).stop) == {"b1/small": 2}
    assert dict(place(2, held, zones, SpotPolicy(extra=0), 0.0).stop) == {"a1/large": 1}


def places(prices: Mapping[str, float]) -> list[SolverOffering]:
    return [
        SolverOffering(one.name, one.zone, prices[one.name.partition("/")[2]], one.capacity)
        for one in pool()
    ]


def test_the_solver_chooses_the_type_that_is_cheaper_for_what_it_does() -> None:
    sure = np.ones((40, 6))
    for cheap, dear in (("large", "small"), ("small", "large")):
        plan = solve(9, places({cheap: 0.2, dear: 0.4}), sure, SolverSettings())
        assert plan is not None and plan.on_demand == 0
        assert {name.partition("/")[2] for name in plan.spot} == {cheap}
        assert (
            does(plan.spot) == 9 and plan.extra(9, {one.name: one.capacity for one in pool()}) == 0
        )


def test_the_solver_spreads_over_zones_and_not_over_types_of_one() -> None:
    plan = solve(
        9, places({"large": 0.2, "small": 0.21}), np.ones((40, 6)), SolverSettings(share_most=0.4)
    )
    assert plan is not None
    assert (
        all(in_zone(plan.spot, zone) <= 4 for zone in ("a1", "b1", "c1")) and does(plan.spot) >= 9
    )


def test_a_plan_in_machines_guides_the_rule_in_instances() -> None:
    placed = place(
        7,
        {},
        Offerings(pool()),
        SpotPolicy(),
        0.0,
        Plan({"a1/large": 1, "b1/large": 1, "c1/small": 1}, 0, 2.0),
    )
    assert (
        dict(placed.launch) == {"a1/large": 1, "b1/large": 1, "c1/small": 1}
        and placed.reason == "solver"
    )


class Cloud:
    """Machines that serve at once, as many as asked for."""

    def __init__(self) -> None:
        self.there: list[Machine] = []

    async def machines(self) -> list[Machine]:
        return list(self.there)

    async def prices(self) -> Mapping[str, float]:
        return {one.name: 0.2 if one.capacity > 1 else 0.5 for one in pool()}

    async def launch(self, zone: str) -> bool:
        self.there.append(Machine(f"vm-{len(self.there)}", zone, True))
        return True

    async def end(self, machine: str) -> None:
        self.there = [one for one in self.there if one.id != machine]


@pytest.mark.parametrize("solver", [None, SolverSettings()])
async def test_a_fleet_of_types_serves_what_is_wanted(solver: SolverSettings | None) -> None:
    cloud, clock = Cloud(), FakeClock(1_800_000_000.0)
    fleet = SpotFleet(cloud, pool(), clock, SpotPolicy(extra=1), solver)
    await fleet.scale(9)
    for _ in range(3):
        await clock.advance(60.0)
        seen = await fleet.fleet()
    spot = [one.zone for one in cloud.there if one.zone]
    assert (seen.wanted, seen.ready) == (9, 9)
    assert len(spot) < 9 <= does({name: spot.count(name) for name in spot}), (
        "large ones are cheaper for what they do"
    )
    assert all(one.zone for one in cloud.there), "on demand has gone"
    await fleet.close()
