"""Whether a simulated fleet keeps an objective: as a whole run says, and sooner."""

from __future__ import annotations

from dataclasses import replace

import pytest
from penstock.simulation.fleet import FleetSimulation, Scenario, scenario_at_load

SHARED = scenario_at_load((1.0,) * 4 + (0.5,) * 4, 1.0, 10.0, slots=4, seed=3)
QUEUED = scenario_at_load((1.0,) * 4, 1.0, 10.0, slots=1, seed=4)


def at(full: Scenario, load: float) -> Scenario:
    """The scenario at this share of its rate."""
    return replace(full, rate_per_s=full.rate_per_s * load)


@pytest.mark.parametrize("full", [SHARED, QUEUED], ids=["processor sharing", "queues"])
@pytest.mark.parametrize("strategy", ["least_added_delay", "round_robin"])
def test_it_says_what_the_quantile_of_a_whole_run_says(full: Scenario, strategy: str) -> None:
    said = set()
    for load in (0.3, 0.55, 0.7, 0.8, 0.9, 0.97, 1.2):
        scenario = at(full, load)
        whole = FleetSimulation(scenario, strategy).run().quantile(0.99)
        keeps = FleetSimulation(scenario, strategy).keeps(8.0)
        assert keeps == (whole <= 8.0), load
        said.add(keeps)
    assert said == {True, False}


def test_an_overloaded_fleet_is_not_served_to_its_end() -> None:
    overloaded = FleetSimulation(at(QUEUED, 3.0), "round_robin")
    assert not overloaded.keeps(8.0)
    assert overloaded.now_s < QUEUED.seconds / 2
