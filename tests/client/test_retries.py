"""When the client retries, as a pure decision."""

from __future__ import annotations

import math
import random

import grpc
import pytest
from penstock.client.retries import FIRST_PAUSE_S, GROWTH, MAX_PAUSE_S, retry_pause_s
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import TABLE, Reason

UNAVAILABLE = Fault(Reason.UNAVAILABLE, "gone")
RNG = random.Random(7)


@pytest.mark.parametrize(
    "reason",
    [reason for reason in Reason if TABLE[reason].code is not grpc.StatusCode.UNAVAILABLE],
)
def test_only_unavailable_is_retried(reason: Reason) -> None:
    assert retry_pause_s(Fault(reason, "no"), 0, 9, math.inf, RNG) is None


def test_pauses_are_jittered_and_grow_up_to_a_bound() -> None:
    for attempt in range(60):
        longest_s = min(FIRST_PAUSE_S * GROWTH**attempt, MAX_PAUSE_S)
        pauses_s = {retry_pause_s(UNAVAILABLE, attempt, 100, math.inf, RNG) for _ in range(20)}
        assert len(pauses_s) == 20
        for pause_s in pauses_s:
            assert pause_s is not None and longest_s / 2 <= pause_s <= longest_s


def test_no_pause_is_shorter_than_the_server_asks_for() -> None:
    fault = Fault(Reason.UNAVAILABLE, "later", retry_after_s=3.0)
    pauses_s = [retry_pause_s(fault, 0, 1, math.inf, RNG) for _ in range(20)]
    assert all(pause_s is not None and pause_s >= 3.0 for pause_s in pauses_s)


def test_no_pause_is_longer_than_the_time_left() -> None:
    assert retry_pause_s(UNAVAILABLE, 0, 2, 0.001, RNG) is None


def test_the_number_of_retries_is_bounded() -> None:
    assert retry_pause_s(UNAVAILABLE, 2, 2, math.inf, RNG) is None
    assert retry_pause_s(UNAVAILABLE, 0, 0, math.inf, RNG) is None
