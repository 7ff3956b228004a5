"""What a router learns of a fleet: exact counts, speed, the others' load, health."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.router.routing.choice import Chosen, Why, choose, closed_because
from penstock.router.routing.fleet import Fleet, Learning, Member
from penstock.router.routing.strategy import LeastAddedDelay
from penstock.rpc.reasons import Verdict

from .fleets import ANYTHING, choice, fail, fleet, member


def test_a_stalled_instance_loses_speed_before_it_answers() -> None:
    stalled, other = member("stalled", work=50.0, busy=2.5), member("other", work=50.0, busy=2.5)
    known = fleet(stalled, other)
    known.begin(stalled, 0.0)
    known.refresh(0.001)
    before = stalled.speed
    known.refresh(2.0)
    assert stalled.speed < 0.7 * before


def test_reports_count_the_others_requests_and_fade() -> None:
    reporting, silent = member("reporting"), member("silent")
    known = fleet(reporting, silent, routers=3)
    reporting.report(4, 0, 0.0, 0.0)
    found = choice(known, 0.1)
    assert isinstance(found, Chosen)
    assert found.member is silent
    assert 3.0 < reporting.others < 4.0
    known.begin(silent, 0.2)
    known.refresh(30.0)
    our_mean_twice = 2 * 0.5
    assert reporting.others == pytest.approx(silent.others) == our_mean_twice, (
        "without news an instance looks neither idle nor full"
    )


def test_with_one_router_a_report_changes_slots_and_no_count() -> None:
    reporting = member("reporting")
    reporting.report(40, 4, 0.5, 0.0)
    found = choice(fleet(reporting), 0.1)
    assert isinstance(found, Chosen)
    assert found.candidates[0].others == 0.0
    assert (reporting.concurrency, reporting.utilization) == (4, 0.5)


def test_a_report_of_fewer_requests_than_ours_counts_none_of_others() -> None:
    reporting = member("reporting", own=5)
    reporting.report(3, 0, 0.0, 0.0)
    assert (reporting.reported, reporting.concurrency) == (0.0, 1)


def test_the_pause_after_an_ejection_doubles_to_a_minute() -> None:
    bad = member("bad")
    known = fleet(bad, member("good"))
    pauses_s, now = [], 0.0
    fail(known, bad, now, Verdict.GONE)
    for _ in range(8):
        pauses_s.append(bad.ejected_until - now)
        now = bad.ejected_until + 0.01
        fail(known, bad, now, Verdict.GONE, 1)
    assert pauses_s == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


@pytest.mark.parametrize(("verdict", "left_in"), [(Verdict.SICK, 1), (Verdict.GONE, 0)])
def test_errors_of_all_leave_half_of_them_in_and_silence_leaves_none(
    verdict: Verdict, left_in: int
) -> None:
    known = fleet(member("a"), member("b"))
    for failing in known.members:
        fail(known, failing, 0.0, verdict)
    assert len(known.members) - known.ejected(0.1) == left_in


def test_a_failure_that_says_nothing_of_the_instance_is_not_held_against_it() -> None:
    blameless = member("blameless")
    known = fleet(blameless, member("other"))
    fail(known, blameless, 0.0, Verdict.NOTHING, 10)
    assert (blameless.failures, blameless.own) == (0, 0)
    assert closed_because(blameless, known, 0.0) is None


@pytest.mark.wire_case(17)
def test_one_request_counts_once_however_often_it_fails() -> None:
    known = fleet(member("a"), member("b"))
    suspect = known.members[0]
    for cause, ejections in (("x", 0), ("x", 0), ("x", 0), ("y", 0), ("y", 0), ("z", 1)):
        known.begin(suspect, 0.0)
        known.fail(suspect, 0.0, Verdict.SICK, cause=cause)
        assert suspect.ejections == ejections
    assert suspect.failures == 6


@pytest.mark.wire_case(20)
@pytest.mark.parametrize(
    ("verdict", "asked_s", "rest_s"),
    [
        (Verdict.BUSY, 45.8, 45.8),
        (Verdict.BUSY, 0.25, 0.25),
        (Verdict.BUSY, 10_000.0, 300.0),
        (Verdict.UNUSABLE, 0.0, 60.0),
        (Verdict.UNUSABLE, 90.0, 90.0),
    ],
)
def test_an_instance_rests_as_long_as_it_asks_within_bounds(
    verdict: Verdict, asked_s: float, rest_s: float
) -> None:
    known = fleet(member("a"), member("b"))
    resting = known.members[0]
    known.begin(resting, 1.0)
    known.fail(resting, 1.0, verdict, rest_s=asked_s)
    assert closed_because(resting, known, 1.0 + rest_s - 0.01) is Why.RESTING
    assert closed_because(resting, known, 1.0 + rest_s) is None
    assert resting.ejections == 0


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    known = fleet(member("a"), member("b"))
    resting = known.members[0]
    for asked_s in (30.0, 1.0):
        known.begin(resting, 0.0)
        known.fail(resting, 0.0, Verdict.BUSY, rest_s=asked_s)
    assert closed_because(resting, known, 29.0) is Why.RESTING
    found = choice(known, 29.0)
    assert isinstance(found, Chosen)
    assert found.member.id == "b"


def test_an_overload_without_a_time_is_a_failure_like_others() -> None:
    known = fleet(member("a"), member("b"))
    fail(known, known.members[0], 0.0, Verdict.BUSY)
    assert closed_because(known.members[0], known, 0.1) is Why.EJECTED


def test_a_success_between_failures_starts_the_count_again() -> None:
    shaky = member("shaky")
    known = fleet(shaky, member("other"))
    for _ in range(5):
        fail(known, shaky, 0.0, Verdict.GONE, 2)
        known.begin(shaky, 0.0)
        known.succeed(shaky, 0.0, 0.01)
    assert closed_because(shaky, known, 0.0) is None
    assert shaky.failures == 10


def test_a_failure_while_ejected_does_not_lengthen_the_pause() -> None:
    bad = member("bad")
    known = fleet(bad, member("good"))
    fail(known, bad, 0.0, Verdict.GONE)
    fail(known, bad, 0.5, Verdict.GONE)
    assert (bad.ejected_until, bad.failures) == (1.0, 6)
    assert closed_because(bad, known, 0.5) is Why.EJECTED


def test_a_restarted_instance_keeps_its_counts_and_loses_its_past() -> None:
    again = member("a", own=2, work=9.0, picks=7, failures=4)
    again.renew(5.0)
    assert (again.own, again.picks, again.failures) == (2, 7, 4)
    assert (again.work, again.successes, again.settled, again.seen) == (0.0, 0, False, 5.0)
    assert again.lives == 1


def test_an_instance_is_settled_once_it_has_served_for_a_while() -> None:
    newcomer = Member("new")
    known = fleet(newcomer)
    for served in range(1, 20):
        known.begin(newcomer, 0.0)
        known.succeed(newcomer, 0.0, 0.01)
        assert newcomer.settled is (served >= 16)


def test_service_time_and_latency_are_learned() -> None:
    known = fleet(member("a"), learning=Learning())
    uniform, now = Random(2).uniform, 0.0
    for _ in range(200):
        known.begin(known.members[0], now)
        took_s = uniform(0.15, 0.25)
        now += took_s
        known.succeed(known.members[0], now, took_s)
    assert known.service_s == pytest.approx(0.2, rel=0.1)
    assert known.p95_s == pytest.approx(0.245, rel=0.05)


def test_a_latency_percentile_needs_enough_answers() -> None:
    known = fleet(member("a"))
    for number in range(64):
        assert math.isinf(known.p95_s), number
        known.begin(known.members[0], 0.0)
        known.succeed(known.members[0], 0.0, 0.01)
    assert known.p95_s == 0.01


def test_speeds_that_differ_little_count_as_equal_where_a_band_is_set() -> None:
    near, far = member("near", work=115.0, busy=5.0), member("far", work=10.0, busy=5.0)
    usual = member("usual", work=100.0, busy=5.0)
    known = fleet(near, far, usual, learning=Learning(calm_band=0.25))
    known.refresh(0.0)
    assert near.speed == usual.speed == known.median_speed()
    assert far.speed < 0.5 * usual.speed


def simulated_shares(
    known: Fleet, service_s: dict[str, float], start: float, requests: int
) -> dict[str, float]:
    """Shares of the picks in the second half of so many requests, one every 40 ms, where each
    instance serves one at a time.
    """
    free_at, running, rng, picks = dict.fromkeys(service_s, start), [], Random(5), Counter[str]()
    by_name = {one.id: one for one in known.members}
    for number in range(requests):
        now = start + number * 0.04
        for done in sorted(one for one in running if one[0] <= now):
            running.remove(done)
            known.succeed(by_name[done[1]], done[0], 0.05)
        found = choose(known, LeastAddedDelay(), ANYTHING, now, rng)
        assert isinstance(found, Chosen)
        name = found.member.id
        known.begin(found.member, now)
        free_at[name] = max(free_at[name], now) + service_s[name]
        running.append((free_at[name], name))
        picks[name] += number >= requests // 2
    for _, name in running:
        known.succeed(by_name[name], start + requests * 0.04, 0.05)
    return {name: picks[name] / sum(picks.values()) for name in service_s}


def test_a_slow_instance_gets_less_and_a_healed_one_comes_back() -> None:
    known = fleet(member("a"), member("b"))
    assert simulated_shares(known, {"a": 0.05, "b": 0.4}, 0.0, 400)["b"] < 0.25
    assert simulated_shares(known, {"a": 0.05, "b": 0.05}, 100.0, 1200)["b"] > 0.25


ENDS = st.one_of(st.none(), st.sampled_from(Verdict))
"""None is a success."""


@given(st.lists(st.tuples(st.integers(0, 2), ENDS), max_size=60))
def test_every_count_returns_to_zero(events: list[tuple[int, Verdict | None]]) -> None:
    known, now = fleet(*(member(str(number)) for number in range(3))), 0.0
    for index, _ in events:
        known.begin(known.members[index], now)
        now += 0.01
    for index, verdict in events:
        if verdict is None:
            known.succeed(known.members[index], now, 0.01)
        else:
            known.fail(known.members[index], now, verdict)
        now += 0.01
    known.refresh(now + 1)
    assert all(one.own == 0 for one in known.members)
    scores = LeastAddedDelay().choose(known.members, known, ANYTHING, Random(1)).scores
    assert all(math.isfinite(score) for score in scores)
