"""The choice of an instance as tables and small simulations in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.router.routing.fleet import Fleet, Learning, Member, Outcome
from penstock.router.routing.instance_choice import (
    Budget,
    Pick,
    choose,
    closed_because,
    expected_wait_s,
    shed,
)
from penstock.router.routing.strategies import STRATEGIES, Ask, LeastAddedDelay, sized_delay

SERVICE_S = 0.05


def member(name: str, **changes: object) -> Member:
    known = Member(name, proven=not changes.keys() & {"leaving", "ejected_until"})
    known.successes = 100
    for key, value in changes.items():
        setattr(known, key, value)
    return known


def fleet(*members: Member, **options: object) -> Fleet:
    made = Fleet(service_s=SERVICE_S, **options)  # type: ignore[arg-type]
    made.members = list(members)
    return made


def pick(
    known: Fleet, now: float = 0.0, strategy: str = "least_added_delay", ask: Ask | None = None
) -> Pick:
    return choose(known, STRATEGIES[strategy](), ask or Ask(), now, Random(1))


def name_of(found: Pick) -> str:
    return found.member.id if found.member else ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lost": True}, "lease has run out"),
        ({"leaving": True}, "draining"),
        ({"ejected_until": 5.0}, "ejected after failures"),
        ({"on_trial": True, "own": 1}, "on trial: one request at a time"),
        ({"on_trial": True}, ""),
        ({"successes": 2, "own": 1}, "joining: one request at a time"),
        ({"successes": 2}, ""),
        ({"successes": 4, "own": 3}, "joining: slow start"),
        ({"successes": 4, "own": 2}, ""),
        ({}, ""),
    ],
)
def test_who_may_serve(changes: dict[str, object], why: str) -> None:
    assert closed_because(member("a", **changes), fleet(), 0.0) == why


@pytest.mark.parametrize(
    ("n", "slots", "added"), [(0, 1, 1.0), (1, 1, 3.0), (3, 1, 7.0), (2, 4, 1.0), (4, 4, 2.25)]
)
def test_the_score_is_the_delay_added_to_everybody(n: int, slots: int, added: float) -> None:
    loaded = member("a", own=n, concurrency=slots, speed=2.0)
    assert LeastAddedDelay().scores([loaded], fleet(), Ask()) == pytest.approx(
        [(added + 0.001 * n) / 2.0]
    )
    assert sized_delay(loaded, 1.0) == pytest.approx((added + 0.001 * n) / 2.0)


def test_the_least_loaded_of_equals_wins() -> None:
    assert name_of(pick(fleet(member("a", own=2), member("b", own=1), member("c", own=3)))) == "b"


def test_a_faster_instance_may_be_busier() -> None:
    fast, slow = member("fast", work=100.0, busy=1.0, own=1), member("slow", work=100.0, busy=10.0)
    assert name_of(pick(fleet(fast, slow))) == "fast"


def test_what_is_there_already_makes_an_instance_nearer() -> None:
    known = fleet(member("warm", own=1), member("cold", own=1))
    assert name_of(pick(known, ask=Ask(sizes={"warm": 0.2}))) == "warm"
    known.members[0].own = 6
    assert name_of(pick(known, ask=Ask(sizes={"warm": 0.2}))) == "cold", "but not at any price"


def test_a_stalled_instance_loses_speed_before_it_answers() -> None:
    stalled, other = member("stalled", work=50.0, busy=2.5), member("other", work=50.0, busy=2.5)
    known = fleet(stalled, other)
    known.begin(stalled, 0.0)
    known.refresh(0.001)
    before = stalled.speed
    known.refresh(2.0)
    assert stalled.speed < 0.7 * before


def test_reports_count_others_and_fade() -> None:
    told, silent = member("told"), member("silent")
    known = fleet(told, silent, routers=3)
    told.report(4, 0, 0.0, 0.0)
    assert name_of(pick(known, 0.1)) == "silent"
    assert 3.0 < told.others < 4.0
    known.begin(silent, 0.2)
    known.refresh(30.0)
    assert told.others == pytest.approx(silent.others) == 1.0, (
        "our own mean of a half, twice: never empty, never full"
    )


def test_with_one_router_a_report_changes_no_count() -> None:
    told = member("told")
    told.report(40, 4, 0.5, 0.0)
    assert pick(fleet(told), 0.1).rows[0][3] == 0.0
    assert told.concurrency == 4


def failing(known: Fleet, bad: Member, now: float, outcome: Outcome, times: int = 3) -> None:
    for _ in range(times):
        known.begin(bad, now)
        known.end(bad, now, outcome)


def test_three_failures_eject_and_one_trial_brings_back() -> None:
    bad = member("bad")
    known = fleet(bad, member("good"))
    failing(known, bad, 0.0, Outcome.GONE)
    assert name_of(pick(known, 0.5)) == "good"
    assert closed_because(bad, known, 1.1) == ""
    known.begin(bad, 1.1)
    assert closed_because(bad, known, 1.1) == "on trial: one request at a time"
    known.end(bad, 1.2, Outcome.SICK)
    assert closed_because(bad, known, 2.5) == "ejected after failures"
    known.begin(bad, 4.0)
    known.end(bad, 4.1, Outcome.SUCCESS, 0.1)
    assert closed_because(bad, known, 4.1) == ""


def test_the_pause_doubles_to_a_minute() -> None:
    bad = member("bad")
    known = fleet(bad, member("good"))
    pauses, now = [], 0.0
    failing(known, bad, now, Outcome.GONE)
    for _ in range(8):
        pauses.append(bad.ejected_until - now)
        now = bad.ejected_until + 0.01
        failing(known, bad, now, Outcome.GONE, 1)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


@pytest.mark.parametrize(("outcome", "left_in"), [(Outcome.SICK, 1), (Outcome.GONE, 0)])
def test_errors_of_all_leave_half_of_them_in_and_silence_none(
    outcome: Outcome, left_in: int
) -> None:
    known = fleet(member("a"), member("b"))
    for item in known.members:
        failing(known, item, 0.0, outcome)
    assert len(known.members) - known.ejected(0.1) == left_in


def test_a_newcomer_gets_one_at_a_time_until_three_successes() -> None:
    newcomer = Member("new")
    known = fleet(newcomer, *(member(str(number), own=5) for number in range(8)))
    most = 0
    for step in range(12):
        now = step * 0.01
        for _ in range(2):
            found = pick(known, now)
            assert found.member is not None
            known.begin(found.member, now)
        if newcomer.successes < 3:
            most = max(most, newcomer.own)
        while newcomer.own and step % 3 == 2:
            known.end(newcomer, now + 0.005, Outcome.SUCCESS, 0.02)
    assert most == 1
    assert newcomer.successes >= 3


def test_a_fleet_of_newcomers_still_serves() -> None:
    known = fleet(Member("a"), Member("b"))
    for item in known.members:
        item.own = 1
    found = pick(known)
    assert name_of(found) in ("a", "b")
    assert found.branch.startswith("young fleet")


def test_nobody_says_why_and_when() -> None:
    found = pick(fleet(member("a", ejected_until=3.0), member("b", leaving=True)), 1.0)
    assert found.member is None
    assert found.left_out == (("a", "ejected after failures"), ("b", "draining"))
    assert found.retry_after_s == 2.0
    assert pick(fleet()).branch == "no instance serves this"


def test_an_instance_that_cannot_is_left_out_with_the_reason() -> None:
    known = fleet(member("a"), member("b"))
    found = choose(
        known,
        LeastAddedDelay(),
        Ask(),
        0.0,
        Random(1),
        fits=lambda name: "lacks vision" if name == "a" else "",
    )
    assert (name_of(found), found.left_out) == ("b", (("a", "lacks vision"),))


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES)))
def test_equal_instances_share_equally(strategy: str) -> None:
    known, rng, served = (
        fleet(*(member(str(number)) for number in range(4))),
        Random(3),
        Counter[str](),
    )
    rule = STRATEGIES[strategy]()
    for number in range(400):
        found = choose(known, rule, Ask(), number * 0.01, rng)
        assert found.member is not None
        served[found.member.id] += 1
        known.begin(found.member, number * 0.01)
        known.end(found.member, number * 0.01 + 0.005, Outcome.SUCCESS, 0.005)
    assert min(served.values()) > (20 if strategy == "peak_ewma" else 60)


def test_late_binding_holds_rather_than_queues() -> None:
    found = pick(fleet(member("a", own=1), member("b", own=1)), strategy="late_binding")
    assert found.held
    known = fleet(member("fast", own=1, work=90.0, busy=1.0), member("slow", work=1.0, busy=9.0))
    assert pick(known, strategy="late_binding").held, "waiting is shorter than the slow one"


def _simulate(
    known: Fleet, service_s: dict[str, float], start: float, requests: int
) -> dict[str, float]:
    """One request every 40 ms, each instance serving one at a time; shares of the picks in the
    second half.
    """
    free_at, running, rng, picks = dict.fromkeys(service_s, start), [], Random(5), Counter[str]()
    by_name = {item.id: item for item in known.members}
    for number in range(requests):
        now = start + number * 0.04
        for done in sorted(item for item in running if item[0] <= now):
            running.remove(done)
            known.end(by_name[done[1]], done[0], Outcome.SUCCESS, 0.05)
        found = choose(known, LeastAddedDelay(), Ask(), now, rng)
        assert found.member is not None
        name = found.member.id
        known.begin(found.member, now)
        free_at[name] = max(free_at[name], now) + service_s[name]
        running.append((free_at[name], name))
        picks[name] += number >= requests // 2
    for _, name in running:
        known.end(by_name[name], start + requests * 0.04, Outcome.SUCCESS, 0.05)
    return {name: picks[name] / sum(picks.values()) for name in service_s}


def test_a_slow_instance_gets_less_and_a_healed_one_comes_back() -> None:
    known = fleet(member("a"), member("b"))
    assert _simulate(known, {"a": 0.05, "b": 0.4}, 0.0, 400)["b"] < 0.25
    assert _simulate(known, {"a": 0.05, "b": 0.05}, 100.0, 1200)["b"] > 0.25


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(list(Outcome))), max_size=60))
def test_every_count_returns_to_zero(events: list[tuple[int, Outcome]]) -> None:
    known, now = fleet(*(member(str(number)) for number in range(3))), 0.0
    for index, _ in events:
        known.begin(known.members[index], now)
        now += 0.01
    for index, outcome in events:
        known.end(known.members[index], now, outcome, 0.01)
        now += 0.01
    known.refresh(now + 1)
    assert all(item.own == 0 for item in known.members)
    assert all(
        math.isfinite(score) for score in LeastAddedDelay().scores(known.members, known, Ask())
    )


def test_a_restarted_instance_keeps_its_count_and_loses_its_past() -> None:
    again = member("a", own=2, work=9.0, picks=7)
    again.renew(5.0)
    assert (again.own, again.picks, again.work, again.successes) == (2, 7, 0.0, 0)


def test_extras_are_a_tenth_of_the_requests() -> None:
    budget, granted = Budget(0.1), 0
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert 100 <= granted <= 111
    assert not Budget(0.0).spend()


@pytest.mark.parametrize(
    ("wait_s", "remaining_s", "limit_s", "refused"),
    [
        (0.0, 1.0, 1.0, False),
        (2.0, 1.0, math.inf, True),
        (2.0, 9.0, 1.0, True),
        (0.5, 9.0, 1.0, False),
    ],
)
def test_shedding_before_the_queue(
    wait_s: float, remaining_s: float, limit_s: float, refused: bool
) -> None:
    assert bool(shed(wait_s, remaining_s, limit_s)) is refused


def test_the_expected_wait_counts_what_is_ahead() -> None:
    assert expected_wait_s(member("a", own=3, speed=20.0)) == pytest.approx(0.15)
    assert expected_wait_s(member("a", own=3, concurrency=4, speed=20.0)) == 0.0


def test_the_unit_of_time_is_learnt() -> None:
    known = fleet(member("a"), learning=Learning())
    draw: Callable[[float, float], float] = Random(2).uniform
    now = 0.0
    for _ in range(200):
        known.begin(known.members[0], now)
        took = draw(0.15, 0.25)
        now += took
        known.end(known.members[0], now, Outcome.SUCCESS, took)
    assert known.service_s == pytest.approx(0.2, rel=0.1)
    assert known.p95_s == pytest.approx(0.245, rel=0.05)
