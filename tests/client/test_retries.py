"""When the client tries again, as a plain decision."""

from __future__ import annotations

import math
import random

import grpc
import pytest
from penstock.client.retries import FIRST_PAUSE_S, GROWTH, LONGEST_PAUSE_S, pause_s
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason

GONE = Fault(Reason.UNAVAILABLE, "gone")
RNG = random.Random(7)


@pytest.mark.parametrize(
    "code",
    [
        code
        for code in grpc.StatusCode
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    ],
)
def test_nothing_but_unavailable_is_tried_again(code: grpc.StatusCode) -> None:
    assert pause_s(Fault(Reason[code.name], "no"), 0, 9, math.inf, RNG) is None


def test_pauses_grow_up_to_a_bound_and_are_jittered() -> None:
    for attempt in range(60):
        most = min(FIRST_PAUSE_S * GROWTH**attempt, LONGEST_PAUSE_S)
        pauses = {pause_s(GONE, attempt, 100, math.inf, RNG) for _ in range(20)}
        assert len(pauses) == 20
        assert all(pause is not None and most / 2 <= pause <= most for pause in pauses)


def test_the_server_is_never_asked_sooner_than_it_says() -> None:
    later = Fault(Reason.UNAVAILABLE, "later", retry_after_s=3.0)
    assert all((pause_s(later, 0, 1, math.inf, RNG) or 0) >= 3.0 for _ in range(20))


def test_no_pause_outlasts_the_call_and_attempts_are_counted() -> None:
    assert pause_s(GONE, 0, 2, 0.001, RNG) is None
    assert pause_s(GONE, 2, 2, math.inf, RNG) is None
    assert pause_s(GONE, 0, 0, math.inf, RNG) is None
