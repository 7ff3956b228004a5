"""The choice of an instance as tables and small simulations in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.router import policy
from penstock.router.policy import Ask, Fleet, Instance, Pick, RetryBudget, pick

ASK = Ask("m")


def instance(name: str, **changes: object) -> Instance:
    known = Instance(name, models=frozenset({"m"}), successes=10)
    for key, value in changes.items():
        setattr(known, key, value)
    return known


def fleet(*instances: Instance) -> Fleet:
    return Fleet({item.id: item for item in instances})


def choose(known: Fleet, ask: Ask = ASK, now: float = 0.0, strategy: str = "least_added_delay") -> Pick:
    return pick(known, ask, now, Random(1), strategy)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"models": frozenset({"other"})}, "does not serve the model"),
        ({"lost": True}, "lost: its lease has run out"),
        ({"draining": True}, "draining"),
        ({"ejected_until": 5.0}, "ejected after failures"),
        ({"ejections": 1, "in_flight": 1}, "on trial: one request at a time"),
        ({"successes": 2, "in_flight": 1}, "joining: one request at a time"),
        ({"successes": 2}, ""),
        ({"ejections": 1}, ""),
        ({}, ""),
    ],
)
def test_who_may_serve(changes: dict[str, object], why: str) -> None:
    assert policy.filter_reason(instance("a", **changes), ASK, 0.0) == why


def test_capabilities_must_match() -> None:
    known = fleet(instance("a"), instance("b", capabilities=frozenset({"tools"})))
    assert choose(known, Ask("m", frozenset({"tools"}))).instance_id == "b"
    assert choose(known, Ask("m", frozenset({"vision"}))).instance_id == ""


def test_the_least_loaded_of_equals_wins() -> None:
    known = fleet(instance("a", in_flight=2), instance("b", in_flight=1), instance("c", in_flight=3))
    assert choose(known).instance_id == "b"


def test_a_faster_instance_may_be_busier() -> None:
    fast, slow = instance("fast", work=100.0, busy_s=1.0, in_flight=1), instance("slow", work=100.0, busy_s=10.0)
    assert choose(fleet(fast, slow)).instance_id == "fast"


def test_a_stalled_instance_loses_speed_before_it_answers() -> None:
    stalled, other = instance("stalled", work=50.0, busy_s=2.5), instance("other", work=50.0, busy_s=2.5)
    known = fleet(stalled, other)
    policy.began(stalled, 0.0, known.speed())
    before = policy.speed(stalled, known.speed())
    policy.advance(stalled, 2.0, known.speed())
    assert policy.speed(stalled, known.speed()) < 0.7 * before


def test_missing_reports_are_neither_empty_nor_full() -> None:
    silent, told = instance("silent"), instance("told")
    policy.reported(told, 0.0, 4)
    found = choose(fleet(silent, told))
    assert found.instance_id == "silent"
    ages = {item.instance_id: item.signals["in_flight_others"][1] for item in found.candidates}
    assert ages == {"silent": -1.0, "told": 0.0}


def test_a_stale_report_says_nothing() -> None:
    told = instance("told", advanced_at=0.0)
    policy.reported(told, 0.0, 40)
    fresh = policy.score(told, 0.5, 20.0)
    assert policy.score(told, 5.0, 20.0) < fresh


def test_three_failures_eject_and_one_trial_brings_back() -> None:
    bad = instance("bad")
    known = fleet(bad, instance("good"))
    for _ in range(policy.FAILURES_TO_EJECT):
        policy.began(bad, 0.0, 20.0)
        policy.ended(bad, 0.0, 20.0, False)
    assert choose(known, now=0.5).instance_id == "good"
    assert policy.filter_reason(bad, ASK, 1.1) == ""
    policy.began(bad, 1.1, 20.0)
    assert policy.filter_reason(bad, ASK, 1.1) == "on trial: one request at a time"
    policy.ended(bad, 1.2, 20.0, False)
    assert policy.filter_reason(bad, ASK, 2.5) == "ejected after failures"
    policy.began(bad, 4.0, 20.0)
    policy.ended(bad, 4.1, 20.0, True)
    assert policy.filter_reason(bad, ASK, 4.1) == ""


def test_a_fleet_of_newcomers_still_serves() -> None:
    known = fleet(instance("a", successes=0, in_flight=1), instance("b", successes=0, in_flight=1))
    found = choose(known)
    assert found.instance_id in ("a", "b")
    assert "least bad" in found.branch


def test_nobody_says_why() -> None:
    found = choose(fleet(instance("a", draining=True)))
    assert found.instance_id == ""
    assert [item.filtered for item in found.candidates] == ["draining"]


@pytest.mark.parametrize("strategy", ["least_added_delay", "least_requests", "round_robin", "power_of_two"])
def test_equal_instances_share_equally(strategy: str) -> None:
    known, rng, served = fleet(*(instance(str(number)) for number in range(4))), Random(3), Counter[str]()
    for number in range(400):
        found = pick(known, ASK, number * 0.01, rng, strategy)
        served[found.instance_id] += 1
        policy.began(known.instances[found.instance_id], number * 0.01, known.speed())
        policy.ended(known.instances[found.instance_id], number * 0.01 + 0.005, known.speed(), True)
    assert min(served.values()) > 60


def test_a_slow_instance_gets_less_and_a_healed_one_comes_back() -> None:
    known = fleet(instance("a"), instance("b"))
    shares = _simulate(known, {"a": 0.05, "b": 0.4}, 0.0, 400)
    assert shares["b"] < 0.25
    later = _simulate(known, {"a": 0.05, "b": 0.05}, 100.0, 1200)
    assert later["b"] > 0.25


def _simulate(known: Fleet, service_s: dict[str, float], start: float, requests: int) -> dict[str, float]:
    """One request every 40 ms, each instance serving one at a time; shares of the picks in the second half."""
    free_at, running, rng, picks = dict.fromkeys(service_s, start), [], Random(5), Counter[str]()
    for number in range(requests):
        now = start + number * 0.04
        for done in sorted(item for item in running if item[0] <= now):
            running.remove(done)
            policy.ended(known.instances[done[1]], done[0], known.speed(), True)
        name = pick(known, ASK, now, rng).instance_id
        policy.began(known.instances[name], now, known.speed())
        free_at[name] = max(free_at[name], now) + service_s[name]
        running.append((free_at[name], name))
        picks[name] += number >= requests // 2
    for _, name in running:
        policy.ended(known.instances[name], start + requests * 0.04, known.speed(), True)
    return {name: picks[name] / sum(picks.values()) for name in service_s}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([True, False, None])), max_size=60))
def test_every_count_returns_to_zero(events: list[tuple[int, bool | None]]) -> None:
    known = fleet(*(instance(str(number)) for number in range(3)))
    now = 0.0
    for index, _ in events:
        policy.began(known.instances[str(index)], now, known.speed())
        now += 0.01
    for index, outcome in events:
        policy.ended(known.instances[str(index)], now, known.speed(), outcome)
        now += 0.01
    assert all(item.in_flight == 0 for item in known.instances.values())
    assert all(math.isfinite(policy.score(item, now, known.speed())) for item in known.instances.values())


def test_retries_are_a_tenth_of_the_requests() -> None:
    budget = RetryBudget(0.1)
    granted = 0
    for _ in range(1000):
        budget.request()
        granted += budget.take()
    assert 100 <= granted <= 111
    assert not RetryBudget(0.0).take()
