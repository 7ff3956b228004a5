"""Several instance types in one spot fleet: machines count by their capacity, in the rule and in
the solver, and are spread over zones and types.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import MachineCount, SpotPolicy
from penstock.scaler.spot.solver import Plan, SolverOffering, SolverSettings, solve
from penstock.testkit.clock import FakeClock

from .spot_fakes import FakeProvider, place

CAPACITIES = {"small": 1.0, "large": 3.0}
ZONES = ("a1", "b1", "c1")
EXACT = SpotPolicy(overprovision=0)


def six_offerings() -> list[Offering]:
    return [
        Offering(f"{zone}/{instance_type}", zone[0], zone, instance_type, capacity)
        for zone in ZONES
        for instance_type, capacity in CAPACITIES.items()
    ]


def type_of(name: str) -> str:
    return name.partition("/")[2]


def capacity_of(counts: Mapping[str, int]) -> float:
    return sum(count * CAPACITIES[type_of(name)] for name, count in counts.items())


def zone_capacity(counts: Mapping[str, int], zone: str) -> float:
    return capacity_of({name: count for name, count in counts.items() if name.startswith(zone)})


def test_machines_count_by_their_capacity() -> None:
    enough = {"a1/large": MachineCount(ready=1), "b1/large": MachineCount(ready=1)}
    placement = place(6, enough, Offerings(six_offerings()), EXACT)
    assert (dict(placement.launch), dict(placement.stop), placement.on_demand) == ({}, {}, 0)
    too_few = {"a1/large": MachineCount(ready=1), "b1/small": MachineCount(ready=1)}
    placement = place(6, too_few, Offerings(six_offerings()), EXACT)
    assert capacity_of(placement.launch) >= 2
    assert placement.on_demand == 2


def test_machines_are_spread_over_zones_and_over_types() -> None:
    offerings = Offerings(six_offerings())
    for name in offerings.by_name:
        offerings.record_price(name, 0.15 if type_of(name) == "large" else 0.3, 1.0)
    launch = place(8, {}, offerings, SpotPolicy(overprovision=1)).launch
    assert capacity_of(launch) >= 9
    assert all(0 < zone_capacity(launch, zone) <= 5 for zone in ZONES)
    # One type may run out in all zones at once.
    assert {type_of(name) for name in launch} == {"small", "large"}


def test_a_small_need_is_not_met_by_a_large_machine() -> None:
    launch = place(1, {}, Offerings(six_offerings()), EXACT).launch
    assert {type_of(name) for name in launch} == {"small"}


@pytest.mark.parametrize(
    ("need", "stop"), [(4, {"b1/small": 1}), (3, {"b1/small": 2}), (2, {"a1/large": 1})]
)
def test_a_large_machine_stays_while_the_rest_would_not_suffice(
    need: int, stop: dict[str, int]
) -> None:
    machines = {"a1/large": MachineCount(ready=1), "b1/small": MachineCount(ready=2)}
    assert dict(place(need, machines, Offerings(six_offerings()), EXACT).stop) == stop


def solver_offerings(prices: Mapping[str, float]) -> list[SolverOffering]:
    return [
        SolverOffering(one.name, one.zone, prices[one.instance_type], one.capacity)
        for one in six_offerings()
    ]


@pytest.mark.parametrize(("cheap", "dear"), [("large", "small"), ("small", "large")])
def test_the_solver_chooses_the_type_that_is_cheaper_for_its_capacity(
    cheap: str, dear: str
) -> None:
    prices = {cheap: 0.2, dear: 0.4}
    plan = solve(9, solver_offerings(prices), np.ones((40, 6)), SolverSettings())
    assert plan is not None
    assert plan.on_demand == 0
    assert {type_of(name) for name in plan.spot} == {cheap}
    assert capacity_of(plan.spot) == 9
    assert plan.excess_capacity(9, {one.name: one.capacity for one in six_offerings()}) == 0


def test_the_zone_limit_of_the_solver_counts_all_types_of_a_zone() -> None:
    offerings = solver_offerings({"large": 0.2, "small": 0.21})
    plan = solve(9, offerings, np.ones((40, 6)), SolverSettings(max_zone_share=0.4))
    assert plan is not None
    assert all(zone_capacity(plan.spot, zone) <= 4 for zone in ZONES)
    assert capacity_of(plan.spot) >= 9


def test_the_rule_follows_a_plan_of_several_types() -> None:
    spot = {"a1/large": 1, "b1/large": 1, "c1/small": 1}
    placement = place(7, {}, Offerings(six_offerings()), plan=Plan(spot, 0, 2.0))
    assert dict(placement.launch) == spot
    assert placement.reason == "solver"


@pytest.mark.parametrize("solver", [None, SolverSettings()])
async def test_a_fleet_of_several_types_serves_what_is_wanted(
    solver: SolverSettings | None,
) -> None:
    prices = {one.name: 0.2 if one.capacity > 1 else 0.5 for one in six_offerings()}
    provider, clock = FakeProvider(prices), FakeClock(1_800_000_000.0)
    policy = SpotPolicy(overprovision=1)
    fleet = SpotFleet(provider, six_offerings(), clock, policy, solver=solver)
    await fleet.scale(9)
    for _ in range(3):
        await clock.advance(60.0)
        status = await fleet.status()
    spot = [one.offering for one in provider.running if one.offering]
    assert (status.wanted, status.ready) == (9, 9)
    # Large machines are cheaper for their capacity, so fewer machines than instances run.
    assert len(spot) < 9 <= capacity_of({name: spot.count(name) for name in spot})
    assert len(spot) == len(provider.running), "no machine on demand is left"
    await fleet.close()
