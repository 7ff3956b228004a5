"""A task that watches its process looks often while the process works and seldom while it rests."""

from __future__ import annotations

from penstock.hosting.pace import WORKING_SHARE, Pace
from pytest import approx

WORKING_S, IDLE_S = 0.1, 0.5


def pauses(shares: list[float]) -> list[float]:
    """The pauses of a process that uses these shares of a core, one share in each pause; the first
    begins at a tick.
    """
    now_s, cpu_s = 0.0, 0.0
    pace = Pace(WORKING_S, IDLE_S, lambda: cpu_s)
    found = [pace.pause_s(now_s)]
    for share in shares:
        now_s += found[-1]
        cpu_s += share * found[-1]
        pace.looked(found[-1])
        found.append(pace.pause_s(now_s))
    return found


def test_the_first_pause_is_that_of_a_process_that_works() -> None:
    assert pauses([]) == [WORKING_S]


def test_an_idle_process_is_looked_at_seldom() -> None:
    first, *idle = pauses([WORKING_SHARE / 2] * 3)
    assert first == WORKING_S
    assert idle[0] == approx(IDLE_S - WORKING_S)  # to the next tick
    assert idle[1:] == approx([IDLE_S] * 2)


def test_a_process_that_works_again_is_looked_at_often_again() -> None:
    assert pauses([0.0, 0.5, 1.0])[2:] == [WORKING_S, WORKING_S]
