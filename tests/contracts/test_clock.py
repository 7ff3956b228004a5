"""One suite for the real clock and the fake one: what waits may rely on the same things of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from penstock.service.clock import Clock, SystemClock
from penstock.testkit.clock import FakeClock

Pass = Callable[[float], Awaitable[None]]


@pytest.fixture(params=["system", "fake"])
def clock(request: pytest.FixtureRequest) -> tuple[Clock, Pass]:
    if request.param == "system":
        return SystemClock(), asyncio.sleep
    fake = FakeClock(100.0)
    return fake, fake.advance


async def test_time_goes_forward_only(clock: tuple[Clock, Pass]) -> None:
    ticking, let_pass = clock
    before = ticking.monotonic()
    await let_pass(0.01)
    assert ticking.monotonic() >= before + 0.009


async def test_sleepers_wake_in_the_order_of_their_time(clock: tuple[Clock, Pass]) -> None:
    ticking, let_pass = clock
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await ticking.sleep(seconds)
        woken.append(name)

    tasks = [
        asyncio.create_task(sleeper(name, seconds))
        for name, seconds in (("late", 0.03), ("soon", 0.01), ("now", 0.0))
    ]
    await let_pass(0.06)
    await asyncio.gather(*tasks)
    assert woken == ["now", "soon", "late"]


async def test_a_cancelled_sleep_ends_at_once(clock: tuple[Clock, Pass]) -> None:
    ticking, let_pass = clock
    task = asyncio.create_task(ticking.sleep(60))
    await let_pass(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
