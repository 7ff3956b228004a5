"""Spot: lives and back-off of zones, the online rule, the solver and its bounds, the simulated
market.
"""

from __future__ import annotations

import numpy as np
import pytest
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.placement_rule import MachineCount, SpotPolicy, place
from penstock.scaler.spot.solver import Plan, SolverOffering, SolverSettings, scenarios, solve
from penstock.simulation.spot_market import ACROSS, WITHIN, correlations, generate
from penstock.simulation.spot_run import simulate

HOUR = 3_600.0


def zones() -> Offerings:
    return Offerings([Offering(name, name[0]) for name in ("a1", "a2", "b1", "b2", "c1")])


def test_a_zone_that_lasts_is_a_better_bet() -> None:
    known = zones()
    for life in (300.0, 400.0, 500.0, 60 * HOUR):
        known.launched("a1", 0.0)
        known.lost("a1", life)
    known.launched("a2", 0.0)
    assert known.survives("a2", HOUR, 10 * HOUR) > known.survives("a2", HOUR, 0.0)
    for _ in range(20):
        known.launched("b1", 0.0)
        known.lost("b1", 300.0)
    assert known.survives("b1", HOUR, 0.0) < known.survives("b2", HOUR, 0.0)


def test_back_off_doubles_and_ends_with_a_long_life() -> None:
    known = zones()
    for wait in (195.0, 390.0, 780.0, 1_560.0, 3_120.0, 3_120.0):
        known.refused("a1", 0.0)
        assert known.by_name["a1"].retry_at_s == wait
    known.launched("a1", 0.0)
    known.lost("a1", 5_000.0)
    assert known.by_name["a1"].retry_at_s == 5_195.0


def test_a_long_life_of_one_that_was_given_back_is_no_death() -> None:
    known = zones()
    before = known.survives("a2", HOUR, 0.0)
    known.launched("a1", 0.0)
    known.left("a1", 50 * HOUR)
    assert known.survives("a2", HOUR, 0.0) >= before


def test_instances_are_spread_over_zones_and_regions() -> None:
    placed = place(4, {}, zones(), SpotPolicy(extra=1), 0.0)
    assert sum(placed.launch.values()) == 5 and max(placed.launch.values()) <= 2
    assert len({name[0] for name in placed.launch}) == 3
    assert placed.on_demand == 4  # nothing serves yet


def test_on_demand_stands_in_and_goes_again() -> None:
    knobs = SpotPolicy(extra=1)
    for ready, fallback in ((5, 0), (4, 0), (3, 1), (0, 4)):
        assert place(4, {"a1": MachineCount(ready)}, zones(), knobs, 0.0).on_demand == fallback
    assert place(4, {"a1": MachineCount(3)}, zones(), SpotPolicy(base=1), 0.0).on_demand == 1
    patient = SpotPolicy(patience_s=600.0)
    assert (
        place(4, {"a1": MachineCount(1)}, zones(), patient, 0.0, short_for_s=599.0).on_demand == 0
    )
    assert (
        place(4, {"a1": MachineCount(1)}, zones(), patient, 0.0, short_for_s=600.0).on_demand == 3
    )


def test_zones_in_back_off_are_left_alone_and_the_last_open_one_takes_all() -> None:
    known = zones()
    for name in ("a1", "a2", "b1", "b2"):
        known.refused(name, 0.0)
    assert dict(place(3, {}, known, SpotPolicy(), 1.0).launch) == {"c1": 4}
    known.refused("c1", 1.0)
    placed = place(3, {}, known, SpotPolicy(), 2.0)
    assert not placed.launch and placed.on_demand == 3


def test_too_many_are_given_back() -> None:
    placed = place(
        1, {"a1": MachineCount(3), "b1": MachineCount(1)}, zones(), SpotPolicy(extra=1), 0.0
    )
    assert sum(placed.stop.values()) == 2 and placed.on_demand == 0
    nothing = place(0, {"a1": MachineCount(1)}, zones(), SpotPolicy(extra=1, base=1), 0.0)
    assert (dict(nothing.stop), nothing.on_demand) == ({"a1": 1}, 0)


def test_the_solver_avoids_zones_that_fall_together() -> None:
    rng = np.random.default_rng(3)
    together = (rng.random((80, 1)) < 0.7).astype(float)
    safe = (rng.random((80, 2)) < 0.97).astype(float)
    available = np.hstack([together, together, safe])
    prices = {"a1": 0.29, "a2": 0.29, "b1": 0.31, "c1": 0.31}
    plan = solve(
        4,
        [SolverOffering(name, name, price) for name, price in prices.items()],
        available,
        SolverSettings(tail_share=0.3),
    )
    assert plan is not None
    assert plan.spot.get("b1", 0) + plan.spot.get("c1", 0) >= 4
    assert all(count <= 3 for count in plan.spot.values())
    served = available @ np.array([plan.spot.get(name, 0) for name in prices]) + plan.on_demand
    short = np.sort(np.maximum(0.0, 4 - served))[-4:]
    assert short.mean() <= 4


def test_with_no_room_anywhere_the_solver_buys_on_demand() -> None:
    plan = solve(
        3,
        [SolverOffering("a1", "a1", 0.3), SolverOffering("b1", "b1", 0.3)],
        np.zeros((40, 2)),
        SolverSettings(),
    )
    assert plan is not None and plan.on_demand == 3 and not plan.spot


def test_a_plan_guides_the_online_rule() -> None:
    placed = place(4, {}, zones(), SpotPolicy(), 0.0, Plan({"b1": 3, "c1": 2}, 1, 2.5))
    assert (
        dict(placed.launch) == {"b1": 3, "c1": 2}
        and placed.on_demand == 4
        and placed.reason == "solver"
    )


def test_scenarios_keep_to_what_is_up_now() -> None:
    history = [(True, False)] * 150 + [(False, True)] * 150
    rows = scenarios(history, (True, False), np.array([0.9, 0.9]), 100, np.random.default_rng(1))
    assert rows.shape == (100, 2) and rows[:, 1].sum() == 0 and rows[:, 0].mean() > 0.8


def test_the_market_correlates_as_published() -> None:
    within, across = correlations(generate(5, 20.0))
    assert within == pytest.approx(WITHIN, abs=0.03) and across == pytest.approx(ACROSS, abs=0.03)


def test_on_a_market_spot_with_fall_back_is_cheap_and_there() -> None:
    market = generate(6, 8.0)
    ours = simulate(market, 4, SpotPolicy()).figures(4)
    alone = simulate(market, 4, SpotPolicy(extra=0, patience_s=1e12)).figures(4)
    assert ours["availability"] > 0.985 > alone["availability"]
    assert alone["cost_vs_on_demand"] < ours["cost_vs_on_demand"] < 0.5
