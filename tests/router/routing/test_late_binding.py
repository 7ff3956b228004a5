"""Late binding: where it fits, and whom it gives a request."""

from __future__ import annotations

import math
from random import Random

import pytest
from penstock.router.routing.fleet import Fleet
from penstock.router.routing.late_binding import MIN_ROUND_TRIPS, ROUND_TRIPS, LateBinding
from penstock.router.routing.strategy import WAIT, Pick

from .fleets import ANYTHING, answer, fleet, late_binding, member


def answered(strategy: LateBinding, away_s: float | None, times: int = 1) -> None:
    """So many answers come, each away for so long."""
    for _ in range(times):
        strategy.answered(member("somebody"), fleet(), answer(away_s))


@pytest.mark.parametrize(
    ("strategy", "routers", "fits"),
    [
        (late_binding(round_trip_s=0.004), 1, True),
        (late_binding(round_trip_s=0.006), 1, False),
        (late_binding(round_trip_s=0.004), 2, False),
        (LateBinding(), 1, False),
    ],
)
def test_it_fits_one_router_with_a_short_round_trip_that_was_measured(
    strategy: LateBinding, routers: int, fits: bool
) -> None:
    assert strategy.fits(Fleet(service_s=0.1, routers=routers)) is fits


def test_the_round_trip_is_the_shortest_of_the_latest_answers() -> None:
    strategy = LateBinding()
    answered(strategy, 0.5)
    answered(strategy, 0.002)
    answered(strategy, 0.3, MIN_ROUND_TRIPS - 3)
    assert math.isinf(strategy.round_trip_s), "too few answers say nothing"
    answered(strategy, 0.3)
    assert strategy.round_trip_s == 0.002
    answered(strategy, 0.3, ROUND_TRIPS)
    assert strategy.round_trip_s == 0.3, "a round trip that has become longer is seen"
    answered(strategy, -0.1)
    assert strategy.round_trip_s == 0.0


def test_an_answer_that_does_not_say_how_long_it_was_computed_measures_nothing() -> None:
    strategy = LateBinding()
    answered(strategy, None, 2 * MIN_ROUND_TRIPS)
    assert math.isinf(strategy.round_trip_s)


def test_the_fastest_free_instance_is_given_the_request() -> None:
    known = fleet(
        member("busy", own=1, speed=30.0), member("slow", speed=10.0), member("fast", speed=20.0)
    )
    found = late_binding().choose(known.members, known, ANYTHING, Random(1))
    assert (found.position, found.why) == (2, Pick.FREE_AND_FASTEST)
    assert found.scores == pytest.approx([1 / 30, 1 / 10, 1 / 20])


def test_a_request_waits_rather_than_queue_at_an_instance() -> None:
    known = fleet(member("a", own=1, speed=1.0), member("b", own=1, speed=1.0))
    found = late_binding().choose(known.members, known, ANYTHING, Random(1))
    assert (found.position, found.why) == (WAIT, Pick.ALL_BUSY)


def test_waiting_is_shorter_than_an_instance_that_is_far_slower() -> None:
    known = fleet(member("fast", own=1, speed=9.0), member("slow", speed=0.3 * 9.0 - 0.1))
    strategy = late_binding()
    assert strategy.choose(known.members, known, ANYTHING, Random(1)).position == WAIT
    known.members[1].speed = 0.3 * 9.0
    assert strategy.choose(known.members, known, ANYTHING, Random(1)).position == 1


@pytest.mark.parametrize(("slots", "at_once"), [(1, 1), (4, 4), (8, 9), (20, 22)])
def test_more_requests_than_slots_cover_the_round_trip(slots: int, at_once: int) -> None:
    known = Fleet(service_s=0.1)
    wide = member("wide", concurrency=slots, speed=1.0, own=at_once - 1)
    strategy = late_binding(round_trip_s=0.005)
    assert strategy.choose([wide], known, ANYTHING, Random(1)).position == 0
    wide.own = at_once
    assert strategy.choose([wide], known, ANYTHING, Random(1)).position == WAIT


def test_where_it_does_not_fit_the_least_added_delay_decides_and_says_so() -> None:
    known = fleet(member("busy", own=1, speed=1.0), member("free", speed=1.0), routers=2)
    found = late_binding().choose(known.members, known, ANYTHING, Random(1))
    assert (found.position, found.why) == (1, Pick.NOT_BOUND_LATE)
    assert found.why == "late binding does not fit: lowest score"
