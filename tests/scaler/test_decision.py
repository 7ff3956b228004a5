"""The scaling decision, rule by rule, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from penstock.scaler.decide.decision import (
    DecisionState,
    PoolState,
    ScalingPolicy,
    Target,
    decide,
    instances_for,
    newsvendor_level,
)

POLICY = ScalingPolicy(min_instances=1, max_instances=20, start_cost_s=120.0)
POOL = PoolState(
    current=4, ready=4, capacity=10.0, demand=35.0, backlog=0.0, forecast=38.0, measured_at_s=0.0
)
QUICK_DOWN = replace(POLICY, start_cost_s=0.0, scale_down_period_s=0.0)


def run(pool: PoolState, policy: ScalingPolicy, seconds: int, step: int = 5) -> list[Target]:
    """Decide every few seconds with demand always fresh and every decision obeyed."""
    state, targets = DecisionState(), []
    for now in range(0, seconds, step):
        target = decide(replace(pool, measured_at_s=float(now)), policy, state, float(now))
        targets.append(target)
        state = target.state
        pool = replace(pool, current=target.wanted, ready=target.wanted)
    return targets


def test_costs_give_the_quantile_level() -> None:
    assert newsvendor_level(shortage_cost=19.0, excess_cost=1.0) == pytest.approx(0.95)


@pytest.mark.parametrize(("shortage", "excess"), [(-1.0, 1.0), (0.0, 0.0)])
def test_costs_that_are_negative_or_all_zero_are_refused(shortage: float, excess: float) -> None:
    with pytest.raises(ValueError, match="shortage_cost and excess_cost"):
        newsvendor_level(shortage, excess)


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({"forecast": 61.0}, 7, "forecast"),
        ({"demand": 55.0}, 6, "present demand"),
        ({"backlog": 900.0}, 7, "backlog"),
        ({"scheduled_minimum": 6}, 6, "schedule"),
        (
            {"forecast": 61.0, "reactive_reason": "reactive: too little history"},
            7,
            "reactive: too little history",
        ),
        ({"forecast": 1000.0}, 8, "max_instances, held by the rate up"),
    ],
)
def test_the_largest_need_is_wanted(changes: dict[str, Any], wanted: int, reason: str) -> None:
    target = decide(replace(POOL, **changes), POLICY, DecisionState(), 0.0)
    assert (target.wanted, target.reason) == (wanted, reason)


def test_at_most_double_or_four_more_are_added_in_fifteen_seconds() -> None:
    targets = run(replace(POOL, forecast=200.0, current=1, ready=1), POLICY, 40)
    assert [target.wanted for target in targets] == [5, 5, 5, 10, 10, 10, 20, 20]
    assert [target.is_deferred for target in targets] == [True] * 6 + [False] * 2


def test_a_surplus_is_kept_until_it_has_cost_a_start_and_then_removed_slowly() -> None:
    targets = run(replace(POOL, demand=5.0, forecast=8.0), POLICY, 400)
    wanted = [target.wanted for target in targets]
    assert wanted[:24] == [4] * 24
    assert targets[3].reason == "held by scale-down cost" and targets[3].is_deferred
    assert (wanted[24], wanted[36], wanted[48]) == (3, 2, 1)
    assert targets[30].reason == "held by the rate down" and targets[30].is_deferred


def test_a_new_need_ends_the_surplus() -> None:
    state = run(replace(POOL, demand=5.0, forecast=8.0), POLICY, 100)[-1].state
    assert state.surplus_since_s is not None
    target = decide(replace(POOL, measured_at_s=100.0), POLICY, state, 100.0)
    assert target.state.surplus_since_s is None


def test_nothing_is_removed_in_a_panic() -> None:
    panic = decide(replace(POOL, demand=90.0, current=9), QUICK_DOWN, DecisionState(), 0.0)
    quiet = replace(POOL, demand=1.0, forecast=1.0, current=9, measured_at_s=30.0)
    during = decide(quiet, QUICK_DOWN, panic.state, 30.0)
    assert (during.wanted, during.reason) == (9, "panic")
    after = decide(replace(quiet, measured_at_s=61.0), QUICK_DOWN, panic.state, 61.0)
    assert after.wanted == 8


def test_a_burst_begins_a_panic_before_its_interval_has_ended() -> None:
    burst = decide(replace(POOL, burst=95.0), POLICY, DecisionState(), 0.0)
    assert (burst.wanted, burst.reason) == (8, "panic, held by the rate up")
    after = decide(replace(POOL, burst=0.0, current=8), POLICY, burst.state, 5.0)
    assert (after.wanted, after.reason) == (8, "panic")


def test_a_burst_below_twice_the_ready_capacity_adds_nothing() -> None:
    assert decide(replace(POOL, burst=75.0), POLICY, DecisionState(), 0.0).wanted == 4


@pytest.mark.parametrize(("current", "wanted"), [(4, 4), (0, 1)])
def test_without_fresh_demand_the_last_decision_stands(current: int, wanted: int) -> None:
    pool = replace(POOL, current=current, demand=0.0, forecast=0.0)
    target = decide(pool, replace(POLICY, min_instances=0), DecisionState(), 1e4)
    assert target.wanted == wanted
    assert target.reason.startswith("no fresh demand")


def test_zero_comes_only_after_long_idleness_and_ends_with_the_first_backlog() -> None:
    policy = replace(QUICK_DOWN, min_instances=0, scale_to_zero_after_s=60.0)
    quiet = replace(POOL, current=1, ready=1, demand=0.0, forecast=0.0)
    targets = run(quiet, policy, 200)
    assert [target.wanted for target in targets].index(0) == 12
    assert targets[-1].wanted == 0
    asleep = replace(quiet, current=0, ready=0, backlog=1.0, capacity=0.0, measured_at_s=205.0)
    assert decide(asleep, policy, targets[-1].state, 205.0).wanted == 1


def test_decisions_stay_within_bounds_whatever_comes() -> None:
    rng = random.Random(5)
    state, current = DecisionState(), 3
    policy = replace(POLICY, min_instances=2, max_instances=9)
    for now in range(0, 20_000, 5):
        pool = PoolState(
            current=current,
            ready=rng.randint(0, current),
            capacity=10.0,
            demand=rng.expovariate(0.02),
            backlog=rng.choice([0.0, rng.expovariate(0.01)]),
            forecast=rng.expovariate(0.02),
            measured_at_s=now - rng.choice([0.0, 1e3]),
            scheduled_minimum=rng.choice([0, 0, 4]),
            reactive_reason=rng.choice(["", "reactive"]),
        )
        target = decide(pool, policy, state, float(now))
        assert 2 <= target.wanted <= 9 and target.reason
        state, current = target.state, target.wanted


def test_instances_are_rounded_up_but_not_on_rounding_errors() -> None:
    amounts = (0.0, 0.1, 10.0, 10.0 + 1e-12, 10.1)
    assert [instances_for(work, 10.0) for work in amounts] == [0, 1, 1, 1, 2]


def test_one_instance_is_needed_while_the_capacity_is_unknown() -> None:
    assert instances_for(5.0, 0.0) == 1
