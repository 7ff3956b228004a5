"""Spot offerings and the placement of machines: lives and back-off, the online rule, the solver and
its scenarios, and what both achieve on a simulated market.
"""

from __future__ import annotations

import numpy as np
import pytest
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import MachineCount, SpotPolicy
from penstock.scaler.spot.solver import Plan, SolverOffering, SolverSettings, draw_scenarios, solve
from penstock.simulation.spot_market import ACROSS, WITHIN, correlations, generate_market
from penstock.simulation.spot_run import simulate

from .spot_fakes import place

HOUR_S = 3_600.0


def five_zones() -> Offerings:
    return Offerings([Offering(name, name[0]) for name in ("a1", "a2", "b1", "b2", "c1")])


def test_a_machine_that_has_lasted_is_likelier_to_survive() -> None:
    offerings = five_zones()
    for life_s in (300.0, 400.0, 500.0, 60 * HOUR_S):
        offerings.record_launch("a1", 0.0)
        offerings.record_loss("a1", life_s)
    offerings.record_launch("a2", 0.0)
    old = offerings.survival_probability("a2", HOUR_S, 10 * HOUR_S)
    assert old > offerings.survival_probability("a2", HOUR_S, 0.0)


def test_survival_is_less_likely_where_machines_were_lost() -> None:
    offerings = five_zones()
    for _ in range(20):
        offerings.record_launch("b1", 0.0)
        offerings.record_loss("b1", 300.0)
    bad, unknown = (offerings.survival_probability(name, HOUR_S, 0.0) for name in ("b1", "b2"))
    assert bad < unknown


def test_the_back_off_doubles_and_starts_again_after_a_long_life() -> None:
    offerings = five_zones()
    for wait_s in (195.0, 390.0, 780.0, 1_560.0, 3_120.0, 3_120.0):
        offerings.record_refusal("a1", 0.0)
        assert offerings.by_name["a1"].retry_at_s == wait_s
    offerings.record_launch("a1", 0.0)
    offerings.record_loss("a1", 5_000.0)
    assert offerings.by_name["a1"].retry_at_s == 5_195.0


def test_a_machine_that_was_given_back_counts_as_no_loss() -> None:
    offerings = five_zones()
    before = offerings.survival_probability("a2", HOUR_S, 0.0)
    offerings.record_launch("a1", 0.0)
    offerings.record_release("a1", 50 * HOUR_S)
    assert offerings.survival_probability("a2", HOUR_S, 0.0) >= before


def test_machines_are_spread_over_zones_and_failure_domains() -> None:
    placement = place(4, {}, five_zones(), SpotPolicy(overprovision=1))
    assert sum(placement.launch.values()) == 5
    assert max(placement.launch.values()) <= 2
    assert len({name[0] for name in placement.launch}) == 3
    # Nothing serves yet, so all that is needed runs on demand meanwhile.
    assert placement.on_demand == 4


@pytest.mark.parametrize(("ready", "on_demand"), [(5, 0), (4, 0), (3, 1), (0, 4)])
def test_on_demand_stands_in_for_what_is_missing(ready: int, on_demand: int) -> None:
    machines = {"a1": MachineCount(ready)}
    placement = place(4, machines, five_zones(), SpotPolicy(overprovision=1))
    assert placement.on_demand == on_demand


def test_the_on_demand_base_counts_towards_the_need() -> None:
    machines = {"a1": MachineCount(3)}
    placement = place(4, machines, five_zones(), SpotPolicy(on_demand_base=1))
    assert placement.on_demand == 1


@pytest.mark.parametrize(("shortage_s", "on_demand"), [(599.0, 0), (600.0, 3)])
def test_on_demand_waits_for_its_delay(shortage_s: float, on_demand: int) -> None:
    policy = SpotPolicy(on_demand_delay_s=600.0)
    machines = {"a1": MachineCount(1)}
    placement = place(4, machines, five_zones(), policy, shortage_s=shortage_s)
    assert placement.on_demand == on_demand


def test_zones_in_back_off_are_not_used_and_the_last_open_one_takes_all() -> None:
    offerings = five_zones()
    for name in ("a1", "a2", "b1", "b2"):
        offerings.record_refusal(name, 0.0)
    assert dict(place(3, {}, offerings, now_s=1.0).launch) == {"c1": 4}
    offerings.record_refusal("c1", 1.0)
    placement = place(3, {}, offerings, now_s=2.0)
    assert not placement.launch
    assert placement.on_demand == 3


def test_surplus_machines_are_stopped() -> None:
    machines = {"a1": MachineCount(3), "b1": MachineCount(1)}
    placement = place(1, machines, five_zones(), SpotPolicy(overprovision=1))
    assert sum(placement.stop.values()) == 2
    assert placement.on_demand == 0


def test_without_need_everything_is_stopped() -> None:
    policy = SpotPolicy(overprovision=1, on_demand_base=1)
    placement = place(0, {"a1": MachineCount(1)}, five_zones(), policy)
    assert (dict(placement.stop), placement.on_demand) == ({"a1": 1}, 0)


def test_the_solver_avoids_zones_that_lose_machines_together() -> None:
    rng = np.random.default_rng(3)
    together = (rng.random((80, 1)) < 0.7).astype(float)
    safe = (rng.random((80, 2)) < 0.97).astype(float)
    survives = np.hstack([together, together, safe])
    prices = {"a1": 0.29, "a2": 0.29, "b1": 0.31, "c1": 0.31}
    plan = solve(
        4,
        [SolverOffering(name, name, price) for name, price in prices.items()],
        survives,
        SolverSettings(max_tail_shortfall=0.3),
    )
    assert plan is not None
    assert plan.spot.get("b1", 0) + plan.spot.get("c1", 0) >= 4
    assert all(count <= 3 for count in plan.spot.values())
    serving = survives @ np.array([plan.spot.get(name, 0) for name in prices]) + plan.on_demand
    worst = np.sort(np.maximum(0.0, 4 - serving))[-4:]
    assert worst.mean() <= 4


def test_without_spot_capacity_anywhere_the_solver_plans_on_demand() -> None:
    offerings = [SolverOffering("a1", "a1", 0.3), SolverOffering("b1", "b1", 0.3)]
    plan = solve(3, offerings, np.zeros((40, 2)), SolverSettings())
    assert plan is not None
    assert plan.on_demand == 3
    assert not plan.spot


def test_the_online_rule_follows_a_plan() -> None:
    placement = place(4, {}, five_zones(), plan=Plan({"b1": 3, "c1": 2}, 1, 2.5))
    assert dict(placement.launch) == {"b1": 3, "c1": 2}
    assert placement.on_demand == 4
    assert placement.reason == "solver"


def test_in_scenarios_an_offering_that_is_closed_now_stays_closed() -> None:
    history = [(True, False)] * 150 + [(False, True)] * 150
    survival, rng = np.array([0.9, 0.9]), np.random.default_rng(1)
    scenarios = draw_scenarios(history, (True, False), survival, 100, rng)
    assert scenarios.shape == (100, 2)
    assert scenarios[:, 1].sum() == 0
    assert scenarios[:, 0].mean() > 0.8


def test_capacity_on_the_simulated_market_correlates_as_published() -> None:
    within, across = correlations(generate_market(5, 20.0))
    assert within == pytest.approx(WITHIN, abs=0.03)
    assert across == pytest.approx(ACROSS, abs=0.03)


def test_spot_with_on_demand_fallback_is_available_and_cheap() -> None:
    market = generate_market(6, 8.0)
    shipped = simulate(market, 4, SpotPolicy()).figures(4)
    spot_only = simulate(market, 4, SpotPolicy(overprovision=0, on_demand_delay_s=1e12)).figures(4)
    assert shipped["availability"] > 0.985 > spot_only["availability"]
    assert spot_only["cost_vs_on_demand"] < shipped["cost_vs_on_demand"] < 0.5
