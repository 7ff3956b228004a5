"""When a peer counts as hung: pings, their pace, and our own delays."""

from __future__ import annotations

import math

import pytest
from penstock.rpc.peers.liveness import (
    FIRST_PATIENCE_S,
    HUNG_AFTER_S,
    LATE_S,
    MAX_PATIENCE_S,
    MAX_PING_GAP_S,
    PATIENCE_FACTOR,
    PING_AFTER_S,
    Check,
    Liveness,
)


def pinged_at(start: float) -> Liveness:
    """A peer that was heard, was sent an item, said nothing, and has been pinged."""
    peer = Liveness()
    peer.heard(start, answers_pings=True)
    assert peer.sent(start)
    assert peer.check(start + PING_AFTER_S, waiting=True) is Check.PING
    return peer


def test_silence_after_a_ping_is_a_hung_peer_until_it_is_heard() -> None:
    peer = pinged_at(0.0)
    assert peer.check(PING_AFTER_S + HUNG_AFTER_S, waiting=True) is Check.HUNG
    assert peer.is_hung and math.isinf(peer.check_at_s)
    assert not peer.sent(1.0)
    peer.heard(2.0)
    assert not peer.is_hung
    assert peer.sent(3.0) and peer.check_at_s == 3.0 + PING_AFTER_S


def test_slow_work_of_a_peer_that_answers_pings_is_waited_for() -> None:
    peer, now, pings = Liveness(), 0.0, 0
    peer.heard(now, answers_pings=True)
    peer.sent(now)
    while now < 60.0:
        now = peer.check_at_s
        if peer.check(now, waiting=True) is Check.PING:
            pings += 1
            peer.heard(now + 0.001)
        assert not peer.is_hung
    assert pings <= 5 + 60.0 / MAX_PING_GAP_S


def test_a_new_item_is_watched_closely_beside_long_polls() -> None:
    peer = Liveness()
    peer.heard(0.0, answers_pings=True)
    peer.sent(0.0)
    for _ in range(10):
        peer.check(peer.check_at_s, waiting=True)
        peer.heard(peer.check_at_s - HUNG_AFTER_S + 0.01)
    later = peer.check_at_s - MAX_PING_GAP_S + 0.1
    assert peer.sent(later) and peer.check_at_s == pytest.approx(later + PING_AFTER_S)


def test_our_own_delay_is_not_held_against_the_peer() -> None:
    peer = pinged_at(0.0)
    late = peer.check_at_s + LATE_S + 0.01
    assert peer.check(late, waiting=True) is Check.NOTHING
    assert peer.check_at_s == late + HUNG_AFTER_S
    assert peer.check(peer.check_at_s, waiting=True) is Check.HUNG


def test_patience_follows_slow_answers_and_falls_again() -> None:
    peer, now = Liveness(), 0.0
    assert peer.patience_s == FIRST_PATIENCE_S
    peer.heard(now, answers_pings=True)

    def answer_in(seconds: float) -> None:
        nonlocal now
        peer.sent(now)
        now = peer.check_at_s
        assert peer.check(now, waiting=True) is Check.PING
        now += seconds
        peer.heard(now, answers_pings=True)

    answer_in(0.001)
    assert peer.patience_s == HUNG_AFTER_S
    answer_in(0.2)
    assert peer.patience_s == pytest.approx(PATIENCE_FACTOR * 0.2)
    for _ in range(10):
        answer_in(0.001)
    assert peer.patience_s == HUNG_AFTER_S
    answer_in(0.24)
    answer_in(0.9)
    assert peer.patience_s == MAX_PATIENCE_S


def test_silence_of_a_peer_that_answers_no_pings_says_nothing() -> None:
    peer = Liveness()
    peer.heard(0.0)
    peer.sent(1.0)
    assert peer.check(peer.check_at_s, waiting=True) is Check.NOTHING
    assert math.isinf(peer.check_at_s) and not peer.is_hung


def test_nobody_is_watched_for_whom_nobody_waits() -> None:
    peer = Liveness()
    assert math.isinf(peer.check_at_s)
    peer.sent(0.0)
    assert peer.check(PING_AFTER_S, waiting=False) is Check.NOTHING
    assert math.isinf(peer.check_at_s)
    peer.heard(1.0)
    assert math.isinf(peer.check_at_s)


def test_a_check_that_comes_early_does_nothing() -> None:
    peer = Liveness()
    peer.sent(0.0)
    assert peer.check(PING_AFTER_S / 2, waiting=True) is Check.NOTHING
