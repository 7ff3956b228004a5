"""Ticks: what is periodic happens at the same times in all processes of a machine."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.service.clock import next_tick, next_tick_s, until_tick_s
from penstock.testkit.clock import FakeClock

PERIODS_S = st.floats(0.01, 60.0)
TIMES_S = st.floats(0.0, 1e6)


@given(TIMES_S, PERIODS_S)
def test_a_tick_is_a_multiple_of_its_period_and_no_more_than_a_tenth_later_than_the_next(
    now_s: float, period_s: float
) -> None:
    tick_s = next_tick_s(now_s, period_s)
    assert round(tick_s / period_s) * period_s == pytest.approx(tick_s, abs=1e-6)
    assert 0.099 * period_s <= tick_s - now_s <= 1.101 * period_s
    assert until_tick_s(now_s, period_s) == tick_s - now_s


def test_a_timer_that_fires_a_little_early_does_not_tick_twice() -> None:
    assert next_tick_s(9.9995, 1.0) == 11.0


async def test_who_waits_for_the_same_period_is_woken_at_the_same_time() -> None:
    clock = FakeClock(100.3)
    woken_s = []

    async def wait(begin_s: float) -> None:
        await clock.sleep(begin_s)
        await next_tick(clock, 2.0)
        woken_s.append(clock.monotonic())

    waiting = [asyncio.create_task(wait(begin_s)) for begin_s in (0.0, 0.1, 0.4)]
    await clock.advance(3.0)
    await asyncio.gather(*waiting)
    assert woken_s == pytest.approx([102.0] * 3)
