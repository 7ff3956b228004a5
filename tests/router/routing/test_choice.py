"""The choice of an instance: who may serve, who is chosen, what is said where nobody is."""

from __future__ import annotations

from random import Random

import pytest
from penstock.router.routing.choice import (
    MAX_CANDIDATES,
    Candidate,
    Chosen,
    Exclusion,
    ExtrasBudget,
    Fits,
    NoInstance,
    Queued,
    TooLong,
    Why,
    choose,
    closed_because,
    expected_wait_s,
    queue_wait_s,
    too_long,
)
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategy import LeastAddedDelay, RequestFeatures
from penstock.rpc.reasons import Verdict

from .fleets import ANYTHING, choice, fail, fleet, late_binding, member


def chosen_from(
    known: Fleet,
    now: float = 0.0,
    request: RequestFeatures = ANYTHING,
    *,
    tried: tuple[str, ...] = (),
    fits: Fits | None = None,
) -> Chosen:
    """The instance that the default strategy chooses."""
    found = choose(known, LeastAddedDelay(), request, now, Random(1), tried=tried, fits=fits)
    assert isinstance(found, Chosen)
    return found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lost": True}, Why.LEASE_EXPIRED),
        ({"leaving": True}, Why.DRAINING),
        ({"ejected_until": 5.0}, Why.EJECTED),
        ({"ejected_until": 0.0}, None),
        ({"on_trial": True, "own": 1}, Why.ON_TRIAL),
        ({"on_trial": True}, None),
        ({"successes": 2, "own": 1}, Why.JOINING),
        ({"successes": 2}, None),
        ({"successes": 3, "own": 1}, None),
        ({"successes": 4, "own": 3}, Why.SLOW_START),
        ({"successes": 4, "own": 2}, None),
        ({"successes": 16, "own": 30}, None),
        ({}, None),
    ],
)
def test_an_instance_that_may_take_nothing_has_a_reason(
    changes: dict[str, object], why: Why | None
) -> None:
    assert closed_because(member("a", **changes), fleet(), 0.0) is why


def test_the_least_loaded_of_equals_is_chosen() -> None:
    loaded = fleet(member("a", own=2), member("b", own=1), member("c", own=3))
    assert chosen_from(loaded).member.id == "b"


def test_a_faster_instance_may_be_busier() -> None:
    fast, slow = member("fast", work=100.0, busy=1.0, own=1), member("slow", work=100.0, busy=10.0)
    assert chosen_from(fleet(fast, slow)).member.id == "fast"


def test_what_is_there_already_makes_an_instance_nearer_but_not_at_any_price() -> None:
    known = fleet(member("warm", own=1), member("cold", own=1))
    warm_is_small = RequestFeatures(sizes={"warm": 0.2})
    assert chosen_from(known, request=warm_is_small).member.id == "warm"
    known.members[0].own = 6
    assert chosen_from(known, request=warm_is_small).member.id == "cold"


def test_a_choice_shows_its_candidates_as_they_were_and_who_was_left_out() -> None:
    known = fleet(member("a", own=3, concurrency=4, seen=2.0), member("b", leaving=True))
    known.members[0].report(5, 4, 0.5, 1.0)
    found = chosen_from(known, 2.0)
    [candidate] = found.candidates
    assert candidate == Candidate("a", found.score, 3, 0.0, 20.0, 4, 1.0)
    assert found.excluded == (Exclusion("b", Why.DRAINING),)
    assert (found.at, found.branch, found.exception) == (2.0, "lowest score", "")
    known.members[0].own = 0
    assert candidate.own == 3, "what happens later does not change what was recorded"


def test_an_instance_that_was_tried_is_left_out() -> None:
    found = chosen_from(fleet(member("a"), member("b", own=5)), tried=("a",))
    assert (found.member.id, found.excluded) == ("b", (Exclusion("a", Why.TRIED),))


def test_an_instance_that_does_not_fit_is_left_out_with_the_reason() -> None:
    lacks_vision = Exclusion("a", Why.LACKS_CAPABILITY, "vision")
    found = chosen_from(
        fleet(member("a"), member("b")), fits=lambda name: lacks_vision if name == "a" else None
    )
    assert (found.member.id, found.excluded) == ("b", (lacks_vision,))
    assert lacks_vision.text == "lacks vision"


def test_nobody_says_why_and_when() -> None:
    known = fleet(member("a", ejected_until=3.0), member("b", leaving=True))
    found = choose(known, LeastAddedDelay(), ANYTHING, 1.0, Random(1), tried=("c",))
    assert isinstance(found, NoInstance)
    assert [(one.instance_id, one.text) for one in found.excluded] == [
        ("a", "ejected after failures"),
        ("b", "draining"),
    ]
    assert (found.retry_after_s, found.branch) == (2.0, "no instance can serve this now")


@pytest.mark.wire_case(17)
def test_the_last_instances_are_never_left_out_and_the_one_that_is_back_first_serves() -> None:
    known = fleet(
        member("a", ejected_until=9.0), member("b", ejected_until=3.0), member("c", leaving=True)
    )
    found = chosen_from(known, 1.0)
    assert (found.member.id, found.branch) == ("b", "last resort: lowest score")
    known.resting["b"] = 60.0
    assert chosen_from(known, 1.0).member.id == "a"


def test_an_empty_fleet_serves_nothing_for_now() -> None:
    found = choice(fleet())
    assert isinstance(found, NoInstance)
    assert (found.branch, found.retry_after_s, found.unable) == (
        "no instance serves this",
        1.0,
        False,
    )


def test_a_reason_that_all_share_is_the_branch() -> None:
    found = choice(fleet(member("a", leaving=True), member("b", leaving=True)))
    assert isinstance(found, NoInstance)
    assert (found.branch, found.retry_after_s) == ("draining", 1.0)


def test_the_wait_for_an_ejected_instance_is_never_nothing() -> None:
    known = fleet(member("a", ejected_until=1.01))
    found = choose(known, LeastAddedDelay(), ANYTHING, 1.0, Random(1), tried=("b",))
    assert isinstance(found, NoInstance)
    assert found.retry_after_s == 0.05


@pytest.mark.parametrize(
    ("whys", "unable"),
    [
        ((Why.LACKS_CAPABILITY,), True),
        ((Why.TOO_LONG, Why.LACKS_CAPABILITY), True),
        ((Why.LACKS_CAPABILITY, Why.DRAINING), False),
        ((Why.TRIED,), False),
        ((), False),
    ],
)
def test_a_fleet_is_unable_where_waiting_mends_nothing_at_any_instance(
    whys: tuple[Why, ...], unable: bool
) -> None:
    excluded = tuple(Exclusion(str(number), why) for number, why in enumerate(whys))
    assert NoInstance(0.0, 1.0, excluded).unable is unable


def test_a_newcomer_gets_one_request_at_a_time_until_three_successes() -> None:
    newcomer = Member("new")
    known = fleet(newcomer, *(member(str(number), own=5) for number in range(8)))
    most_at_once = 0
    for step in range(12):
        now = step * 0.01
        for _ in range(2):
            known.begin(chosen_from(known, now).member, now)
        if newcomer.successes < 3:
            most_at_once = max(most_at_once, newcomer.own)
        while newcomer.own and step % 3 == 2:
            known.succeed(newcomer, now + 0.005, 0.02)
    assert most_at_once == 1
    assert newcomer.successes >= 3


def test_a_fleet_of_newcomers_still_serves() -> None:
    known = fleet(Member("a"), Member("b"))
    for newcomer in known.members:
        newcomer.own = 1
    found = chosen_from(known)
    assert found.member in known.members
    assert (found.exception, found.branch) == ("young fleet", "young fleet: lowest score")


@pytest.mark.parametrize(
    "closed",
    [{"lost": True}, {"leaving": True}, {"on_trial": True}, {"ejected_until": 5.0}],
)
def test_what_is_more_than_new_is_not_taken_unproven(closed: dict[str, object]) -> None:
    known = fleet(Member("a"), Member("b"))
    known.members[0].own = known.members[1].own = 1
    for attribute, value in closed.items():
        setattr(known.members[0], attribute, value)
    assert chosen_from(known).member.id == "b"
    assert isinstance(
        choose(known, LeastAddedDelay(), ANYTHING, 0.0, Random(1), tried=("b",)), NoInstance
    )


def test_of_many_candidates_some_are_looked_at() -> None:
    known = fleet(*(member(f"{number:03}") for number in range(MAX_CANDIDATES + 1)))
    assert len(chosen_from(known).candidates) == MAX_CANDIDATES
    known.members.pop()
    assert len(chosen_from(known).candidates) == MAX_CANDIDATES


def test_three_failures_eject_and_one_success_on_trial_brings_back() -> None:
    bad = member("bad")
    known = fleet(bad, member("good"))
    fail(known, bad, 0.0, Verdict.GONE)
    assert chosen_from(known, 0.5).member.id == "good"
    assert closed_because(bad, known, 1.1) is None
    known.begin(bad, 1.1)
    assert closed_because(bad, known, 1.1) is Why.ON_TRIAL
    known.fail(bad, 1.2, Verdict.SICK)
    assert closed_because(bad, known, 2.5) is Why.EJECTED
    known.begin(bad, 4.0)
    known.succeed(bad, 4.1, 0.1)
    assert closed_because(bad, known, 4.1) is None


def test_a_strategy_that_finds_nobody_free_queues_the_request() -> None:
    known = fleet(member("a", own=1), member("b", leaving=True))
    found = choose(known, late_binding(), ANYTHING, 3.0, Random(1))
    assert isinstance(found, Queued)
    assert [one.instance_id for one in found.candidates] == ["a"]
    assert found.excluded == (Exclusion("b", Why.DRAINING),)
    assert (found.at, found.branch) == (3.0, "all busy: waits in the router")


def test_extras_are_a_tenth_of_the_requests() -> None:
    budget, granted = ExtrasBudget(0.1), 0
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert 100 <= granted <= 111
    assert not ExtrasBudget(0.0).spend()


def test_extras_are_saved_up_to_a_bound() -> None:
    budget = ExtrasBudget(0.5, max_saved=2.0)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert not budget.spend(), "half an extra is none"
    budget.earn()
    assert budget.spend()


@pytest.mark.parametrize(
    ("wait_s", "remaining_s", "limit_s", "why"),
    [
        (0.0, 1.0, 1.0, None),
        (1.0, 1.0, 1.0, None),
        (2.0, 1.0, float("inf"), TooLong.FOR_DEADLINE),
        (2.0, 9.0, 1.0, TooLong.FOR_CLASS),
        (9.0, 2.0, 1.0, TooLong.FOR_DEADLINE),
        (0.5, 9.0, 1.0, None),
    ],
)
def test_a_request_is_refused_before_it_joins_too_long_a_queue(
    wait_s: float, remaining_s: float, limit_s: float, why: TooLong | None
) -> None:
    assert too_long(wait_s, remaining_s, limit_s) is why


@pytest.mark.parametrize(
    ("changes", "wait_s"),
    [
        ({"own": 3, "speed": 20.0}, 3 / 20),
        ({"own": 2, "others": 1.0, "speed": 20.0}, 3 / 20),
        ({"own": 3, "concurrency": 4, "speed": 20.0}, 0.0),
        ({"own": 7, "concurrency": 4, "speed": 20.0}, 4 / 80),
        ({"own": 3, "speed": 0.0}, 0.0),
    ],
)
def test_the_expected_wait_is_what_exceeds_the_slots_at_the_learned_speed(
    changes: dict[str, object], wait_s: float
) -> None:
    assert expected_wait_s(member("a", **changes)) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("priority", "wait_s"),
    [(1, 9 / 20), (2, 6 / 20), (3, 2 / 20), (4, 1 / 20)],
)
def test_the_less_urgent_let_a_request_pass(priority: int, wait_s: float) -> None:
    """Nine in flight, of which three are another router's and taken to be like ours, but for an
    urgent request, which does not wait for what may be less urgent.
    """
    queued = member("a", own=6, others=3.0, speed=20.0)
    queued.own_by_priority = [0, 2, 2, 1, 1]
    assert expected_wait_s(queued, priority) == pytest.approx(wait_s)


def test_the_wait_in_the_router_is_that_of_the_calls_ahead_at_the_speed_of_all() -> None:
    known = fleet(
        member("a", concurrency=2, speed=3.0),
        member("b", speed=4.0),
        member("lost", speed=100.0, lost=True),
        member("leaving", speed=100.0, leaving=True),
    )
    assert queue_wait_s(known, 0) == pytest.approx(1 / 10)
    assert queue_wait_s(known, 4) == pytest.approx(5 / 10)
    assert queue_wait_s(fleet(member("lost", speed=1.0, lost=True)), 4) == 0.0
