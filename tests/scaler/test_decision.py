"""The decision, rule by rule, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from penstock.scaler.decide.decision import (
    DecisionState,
    PoolState,
    ScalingPolicy,
    Target,
    decide,
    instances,
    newsvendor_level,
)
from penstock.scaler.decide.measurements import CapacityEstimate, LeadTimes

RULES = ScalingPolicy(least=1, most=20, start_cost_s=120.0)
VIEW = PoolState(
    current=4, ready=4, capacity=10.0, demand=35.0, backlog=0.0, forecast=38.0, measured_at=0.0
)


def run(
    view: PoolState,
    rules: ScalingPolicy,
    seconds: int,
    step: int = 5,
    memory: DecisionState | None = None,
) -> list[Target]:
    """Decide every few seconds with demand always fresh and every decision obeyed."""
    memory, verdicts = memory or DecisionState(), []
    for now in range(0, seconds, step):
        verdict = decide(replace(view, measured_at=float(now)), rules, memory, float(now))
        verdicts.append(verdict)
        memory, view = verdict.memory, replace(view, current=verdict.wanted, ready=verdict.wanted)
    return verdicts


def test_the_price_decides_the_quantile() -> None:
    assert newsvendor_level(19.0, 1.0) == pytest.approx(0.95)
    for under, over in ((-1.0, 1.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="prices"):
            newsvendor_level(under, over)


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({"forecast": 61.0}, 7, "forecast"),
        ({"demand": 55.0}, 6, "present demand"),
        ({"backlog": 900.0}, 7, "backlog"),
        ({"scheduled": 6}, 6, "schedule"),
        (
            {"forecast": 61.0, "reactive": "reactive: too little history"},
            7,
            "reactive: too little history",
        ),
        ({"forecast": 1000.0}, 8, "most, held by the rate up"),
    ],
)
def test_the_most_that_any_rule_asks_for_is_wanted(
    changes: dict[str, float], wanted: int, reason: str
) -> None:
    verdict = decide(replace(VIEW, **changes), RULES, DecisionState(), 0.0)  # type: ignore[arg-type]
    assert (verdict.wanted, verdict.reason) == (wanted, reason)


def test_capacity_grows_by_twice_or_four_in_fifteen_seconds() -> None:
    wanted = [
        verdict.wanted
        for verdict in run(replace(VIEW, forecast=200.0, current=1, ready=1), RULES, 40)
    ]
    assert wanted == [5, 5, 5, 10, 10, 10, 20, 20]


def test_a_surplus_is_kept_until_it_has_cost_a_start_and_then_leaves_slowly() -> None:
    verdicts = run(replace(VIEW, demand=5.0, forecast=8.0), RULES, 400)
    wanted = [verdict.wanted for verdict in verdicts]
    assert wanted[:24] == [4] * 24 and verdicts[3].reason == "held by scale-down cost"
    assert wanted[24] == 3 and wanted[36] == 2 and wanted[48] == 1
    assert verdicts[30].reason == "held by the rate down"


def test_a_new_need_ends_the_surplus() -> None:
    memory = run(replace(VIEW, demand=5.0, forecast=8.0), RULES, 100)[-1].memory
    verdict = decide(replace(VIEW, measured_at=100.0), RULES, memory, 100.0)
    assert verdict.memory.surplus_since is None


def test_in_panic_nothing_is_taken_away() -> None:
    rules = replace(RULES, start_cost_s=0.0, down_every_s=0.0)
    memory = decide(
        replace(VIEW, demand=90.0, ready=4, current=9), rules, DecisionState(), 0.0
    ).memory
    quiet = replace(VIEW, demand=1.0, forecast=1.0, current=9, measured_at=30.0)
    held = decide(quiet, rules, memory, 30.0)
    assert (held.wanted, held.reason) == (9, "panic")
    assert decide(replace(quiet, measured_at=61.0), rules, memory, 61.0).wanted == 8


def test_a_burst_begins_panic_before_its_interval_has_ended() -> None:
    burst = decide(replace(VIEW, burst=95.0), RULES, DecisionState(), 0.0)
    assert (burst.wanted, burst.reason) == (8, "panic, held by the rate up")
    over = decide(replace(VIEW, burst=0.0, current=8), RULES, burst.memory, 5.0)
    assert (over.wanted, over.reason) == (8, "panic")
    assert decide(replace(VIEW, burst=75.0), RULES, DecisionState(), 0.0).wanted == 4


def test_without_fresh_demand_the_last_answer_stands() -> None:
    for current, kept in ((4, 4), (0, 1)):
        verdict = decide(
            replace(VIEW, current=current, demand=0.0, forecast=0.0),
            replace(RULES, least=0),
            DecisionState(),
            1e4,
        )
        assert verdict.wanted == kept
        assert verdict.reason.startswith("no fresh demand")


def test_zero_only_after_long_quiet_and_one_as_soon_as_something_waits() -> None:
    rules = replace(RULES, least=0, start_cost_s=0.0, down_every_s=0.0, zero_after_s=60.0)
    quiet = replace(VIEW, current=1, ready=1, demand=0.0, forecast=0.0)
    verdicts = run(quiet, rules, 200)
    assert [verdict.wanted for verdict in verdicts].index(0) == 12
    assert verdicts[-1].wanted == 0
    asleep = replace(quiet, current=0, ready=0, backlog=1.0, capacity=0.0, measured_at=205.0)
    assert decide(asleep, rules, verdicts[-1].memory, 205.0).wanted == 1


def test_decisions_stay_within_bounds_whatever_comes() -> None:
    rng = random.Random(5)
    memory, current = DecisionState(), 3
    rules = replace(RULES, least=2, most=9)
    for now in range(0, 20_000, 5):
        view = PoolState(
            current,
            rng.randint(0, current),
            10.0,
            rng.expovariate(0.02),
            rng.choice([0.0, rng.expovariate(0.01)]),
            rng.expovariate(0.02),
            now - rng.choice([0.0, 1e3]),
            rng.choice([0, 0, 4]),
            rng.choice(["", "reactive"]),
        )
        verdict = decide(view, rules, memory, float(now))
        assert 2 <= verdict.wanted <= 9 and verdict.reason
        memory, current = verdict.memory, verdict.wanted


def test_instances_round_up_but_not_on_dust() -> None:
    assert [instances(work, 10.0) for work in (0.0, 0.1, 10.0, 10.0 + 1e-12, 10.1)] == [
        0,
        1,
        1,
        1,
        2,
    ]
    assert instances(5.0, 0.0) == 1


def test_the_horizon_is_learnt_from_starts() -> None:
    times = LeadTimes(180.0)
    assert times.horizon_s == 180.0
    for seconds in (20.0, 22.0, 25.0, 21.0, 60.0, 23.0, 24.0, 22.0, 21.0, 20.0, 26.0):
        times.add(seconds)
    assert 25.0 <= times.horizon_s <= 60.0


def test_a_saturated_fleet_corrects_its_capacity() -> None:
    capacity = CapacityEstimate()
    for _ in range(60):
        capacity.saw(100.0, (50.0, 100.0), 2, 5.0, given=10.0)
    assert capacity.of(10.0) == pytest.approx(5.0, rel=0.05)
    idle = CapacityEstimate()
    idle.saw(10.0, (0.0, 0.0), 2, 5.0, given=10.0)
    assert idle.of(10.0) == 10.0
