"""A store that hangs when the first call comes: who waits for it, and for how long.

The event loop's time stands still unless a test moves it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.envoy_service import MAX_STORE_WAIT_S as MAX_ENVOY_WAIT_S
from penstock.limiter.api.envoy_service import RETURN_S, EnvoyServicer
from penstock.limiter.holds import MAX_STORE_WAIT_S, STORE_WAIT_SHARE
from penstock.limiter.store.connection import PER_CALL_S, TIMER_TURNS

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
ENVOY_RULES = [
    {"domain": "edge", "descriptor": ["open"], "requests_per_unit": 3, "unit": "minute"},
    {
        "domain": "edge",
        "descriptor": ["closed"],
        "requests_per_unit": 3,
        "unit": "minute",
        "store_loss": "closed",
    },
]
PATIENCE_S = 0.003
TINY_S = 1e-6


class LoopTime:
    """The loop's time: it stands still until a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now_s = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now_s)

    async def advance(self, seconds: float) -> None:
        """Move time, and let tasks run until they wait again."""
        self._now_s += seconds
        for _ in range(20):
            await asyncio.sleep(0)

    async def exhaust_patience(self, call: asyncio.Task[Any]) -> None:
        """Move time until the patience for one call ends, during which it must wait."""
        await self.advance(0.0)
        for _ in range(TIMER_TURNS):
            assert not call.done()
            await self.advance((PATIENCE_S + PER_CALL_S) / TIMER_TURNS + TINY_S)


@pytest.fixture
async def loop_time() -> AsyncIterator[LoopTime]:
    with pytest.MonkeyPatch.context() as patch:
        yield LoopTime(patch)


class Deadline:
    """What a call's context says of the time that its caller still waits."""

    def __init__(self, left_s: float | None) -> None:
        self._left_s = left_s

    def time_remaining(self) -> float | None:
        return self._left_s


async def quick_limiter(limiters: Limiters, store_loss: str) -> Limiter:
    """A limiter whose store is known to be quick."""
    limiter = limiters.with_budget(store_loss=store_loss, patience_s=PATIENCE_S)
    await limiter.store.connect()
    return limiter


def start_reserving(limiter: Limiter, deadline_s: float = math.inf) -> asyncio.Task[pb.Decision]:
    call = limiter.caller._replace(deadline_s=deadline_s)
    return asyncio.create_task(limiter.reserve("a", 5, call=call))


@pytest.mark.parametrize(
    ("left_s", "waited_s"),
    [(None, MAX_ENVOY_WAIT_S), (0.020, MAX_ENVOY_WAIT_S), (0.012, 0.012 - RETURN_S), (0.004, 0.0)],
    ids=["no deadline", "envoy's default", "queued for long", "too late"],
)
@pytest.mark.parametrize(
    ("key", "code"),
    [("open", rls.RateLimitResponse.OK), ("closed", rls.RateLimitResponse.OVER_LIMIT)],
)
async def test_envoy_is_answered_within_its_time_from_the_first_call_on(
    limiters: Limiters,
    loop_time: LoopTime,
    left_s: float | None,
    waited_s: float,
    key: str,
    code: int,
) -> None:
    limiter = limiters.make(envoy=ENVOY_RULES)  # its store is not known yet
    envoy = EnvoyServicer(limiter.service, limiter.store)
    request = rls.RateLimitRequest(domain="edge")
    request.descriptors.add().entries.add(key=key, value="x")
    context: Any = Deadline(left_s)
    async with await limiters.stopped_store():
        for _ in range(3):
            call = asyncio.create_task(envoy.ShouldRateLimit(request, context))
            if waited_s:
                await loop_time.advance(0.0)
                await loop_time.advance(waited_s - TINY_S)
                assert not call.done()
            await loop_time.advance(2 * TINY_S)
            assert call.done()
            assert (await call).overall_code == code
    await limiter.until_nothing_is_owed()


async def test_the_first_call_to_a_store_that_hangs_after_the_start_waits_no_longer_than_others(
    limiters: Limiters, loop_time: LoopTime
) -> None:
    limiter = await quick_limiter(limiters, "open")
    async with await limiters.stopped_store():
        call = start_reserving(limiter)
        await loop_time.exhaust_patience(call)
        assert call.done()
        assert (await call).verdict == pb.VERDICT_ALLOWED
    await limiter.until_nothing_is_owed()


@pytest.mark.parametrize("store_loss", ["lease", "closed"])
@pytest.mark.parametrize(
    ("left_s", "waited_s"), [(math.inf, MAX_STORE_WAIT_S), (1.0, STORE_WAIT_SHARE)]
)
async def test_a_rule_that_refuses_without_the_store_waits_for_it_within_the_callers_time(
    limiters: Limiters, loop_time: LoopTime, store_loss: str, left_s: float, waited_s: float
) -> None:
    limiter = await quick_limiter(limiters, store_loss)
    async with await limiters.stopped_store():
        call = start_reserving(limiter, limiters.clock.monotonic() + left_s)
        await loop_time.exhaust_patience(call)
        await loop_time.advance(waited_s - 0.01)
        assert not call.done()
        await loop_time.advance(0.02)
        assert (await call).verdict == pb.VERDICT_STORE_UNAVAILABLE
    await limiter.until_nothing_is_owed()


@pytest.mark.parametrize("store_loss", ["lease", "closed"])
async def test_a_store_that_goes_on_in_time_decides_after_all_and_holds_once(
    limiters: Limiters, loop_time: LoopTime, store_loss: str
) -> None:
    limiter = await quick_limiter(limiters, store_loss)
    async with await limiters.stopped_store():
        call = start_reserving(limiter)
        await loop_time.exhaust_patience(call)
        await loop_time.advance(0.3)
        assert not call.done()
    assert (await call).verdict == pb.VERDICT_ALLOWED
    assert await limiter.usage() == (0, 5)


async def test_a_store_that_was_away_at_the_start_is_known_to_be_quick_once_it_is_found(
    limiters: Limiters, loop_time: LoopTime
) -> None:
    limiter = limiters.with_budget(store_loss="open", patience_s=PATIENCE_S)
    limiter.connection.cut()
    await limiter.store.connect()
    call = start_reserving(limiter)
    await loop_time.advance(0.0)
    assert call.done()
    assert (await call).verdict == pb.VERDICT_ALLOWED
    limiter.connection.mend()
    await limiter.until_found_again()
    async with await limiters.stopped_store():
        call = start_reserving(limiter)
        await loop_time.exhaust_patience(call)
        assert call.done()
        assert (await call).verdict == pb.VERDICT_ALLOWED
    await limiter.until_nothing_is_owed()
