"""Of how many requests the detectors look at how many."""

from __future__ import annotations

import random

import pytest
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.detection.thinning import MAX_KINDS, PER_S, Thinning

from .requests import settled_request

MODEL = {"gen_ai__request__model": "small"}


def _taken(thinning: Thinning, second: int, requests: int, error: str = "", **model: str) -> int:
    rng = random.Random(second)
    ends = sorted(second + rng.random() * 0.9 for _ in range(requests))
    made = (settled_request(at_s, 1.0, error, **{**MODEL, **model}) for at_s in ends)
    return sum(thinning.takes(request) for request in made)


def test_all_are_looked_at_where_there_are_few() -> None:
    thinning = Thinning()
    assert [_taken(thinning, second, PER_S) for second in range(3)] == [PER_S] * 3


@pytest.mark.parametrize("times", [2, 6, 30])
def test_where_there_are_many_about_as_many_are_looked_at_as_where_there_are_few(
    times: int,
) -> None:
    thinning = Thinning()
    taken = [_taken(thinning, second, times * PER_S) for second in range(4)]
    assert taken[0] == times * PER_S, "how many there are is not known yet"
    assert all(abs(each - PER_S) <= 1 for each in taken[1:])


def test_a_kind_with_few_requests_is_not_thinned_beside_one_with_many() -> None:
    thinning = Thinning()
    for second in range(3):
        _taken(thinning, second, 10 * PER_S)
        assert _taken(thinning, second, 5, gen_ai__request__model="rare") == 5


def test_requests_that_settle_out_of_order_belong_to_the_latest_second() -> None:
    thinning = Thinning()
    _taken(thinning, 1, 10 * PER_S)
    taken = [thinning.takes(settled_request(2 + late, 1.0, **MODEL)) for late in (0, -1) * 500]
    assert sum(taken) == PER_S


def test_a_clock_that_is_far_ahead_stops_no_counting() -> None:
    thinning = Thinning()
    for second in range(3):
        _taken(thinning, second, 10 * PER_S)
    thinning.takes(settled_request(1e6, 1.0, **MODEL))
    for second in range(3, 6):
        taken = _taken(thinning, second, PER_S // 2)
    assert taken == PER_S // 2


def test_the_kinds_that_are_counted_are_bounded() -> None:
    thinning = Thinning()
    for number in range(MAX_KINDS + 50):
        model = {"gen_ai__request__model": f"model {number}"}
        assert thinning.takes(settled_request(1.0, 1.0, **model))
    assert len(thinning) == MAX_KINDS


def test_a_share_of_failures_stays_what_it_is() -> None:
    """A fifth of a busy route fails, and so it is reported; none fail, and nothing is."""
    for failing, reported in ((0.2, True), (0.0, False)):
        rng, detector = random.Random(1), RequestDetector()
        pipeline = DetectionPipeline([detector])
        for number in range(20 * 6 * PER_S):
            at_s = number / (6 * PER_S)
            fails = at_s > 10 and rng.random() < failing
            error = "UNAVAILABLE" if fails else ""
            pipeline.observe_request(settled_request(at_s, 1.0, error, **MODEL))
        assert bool(detector.metrics()["request_alerts"]) is reported
