"""A store that hangs when the first question comes: who waits for it, and for how long.

The loop's time is moved by the tests.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.envoy_service import ANSWER_S, RETURN_S, EnvoyServicer
from penstock.limiter.api.limiter_service import STORE_SHARE, STORE_WAIT_S, LimiterServicer
from penstock.limiter.ledger_store import PATIENCE_TICKS, LedgerStore
from penstock.limiter.patience import PER_CALL_S, Patience
from penstock.rpc.call import Call, Principal
from penstock.service.store import open_store

Limiters = Any
ANN = Call(Principal("acme"))
MONEY = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
}
EDGE = [
    {"domain": "edge", "descriptor": ["open"], "requests_per_unit": 3, "unit": "minute"},
    {
        "domain": "edge",
        "descriptor": ["shut"],
        "requests_per_unit": 3,
        "unit": "minute",
        "store_loss": "closed",
    },
]
OVER, OK = rls.RateLimitResponse.OVER_LIMIT, rls.RateLimitResponse.OK
PATIENCE_S = 0.003
TINY_S = 1e-6


class LoopTime:
    """The loop's time: it stands still until a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now_s = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now_s)

    async def advance(self, seconds: float) -> None:
        self._now_s += seconds
        for _ in range(20):
            await asyncio.sleep(0)


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


class Stopped:
    """A store that hangs (SIGSTOP) inside the block."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    async def __aenter__(self) -> None:
        self._pid = int((await self._store.client.info("server"))["process_id"])
        os.kill(self._pid, signal.SIGSTOP)

    async def __aexit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)
        while self._store._slow or self._store._owed:
            await self._store.client.ping()
        await self._store.usage("acme", ())  # behind what is in flight


@pytest.mark.parametrize(
    ("left_s", "waited_s"),
    [(None, ANSWER_S), (0.020, ANSWER_S), (0.012, 0.012 - RETURN_S), (0.004, 0.0)],
    ids=["no deadline", "envoy's default", "queued for long", "too late"],
)
@pytest.mark.parametrize(("key", "verdict"), [("open", OK), ("shut", OVER)])
async def test_envoy_is_answered_in_its_time_from_the_first_call_on(
    limiters: Limiters,
    loop_time: LoopTime,
    left_s: float | None,
    waited_s: float,
    key: str,
    verdict: int,
) -> None:
    limiter, store = (
        limiters.make([MONEY], envoy=EDGE),
        limiters.stores[-1],
    )  # never met: it would be waited for
    envoy, request = EnvoyServicer(limiter, store), rls.RateLimitRequest(domain="edge")
    request.descriptors.add().entries.add(key=key, value="x")
    async with Stopped(store):
        for _ in range(3):
            asked = asyncio.create_task(envoy.ShouldRateLimit(request, Deadline(left_s)))  # type: ignore[arg-type]
            if waited_s:
                await loop_time.advance(0.0)
                await loop_time.advance(waited_s - TINY_S)
                assert not asked.done()
            await loop_time.advance(2 * TINY_S)
            assert asked.done()
            assert (await asked).overall_code == verdict


async def first_answer(loop_time: LoopTime, asked: Coroutine[Any, Any, Any]) -> Any:
    """The answer to a first question, which must come when the patience for one question is over,
    and not before.
    """
    asking = asyncio.create_task(asked)
    await patience_ends(loop_time, asking)
    assert asking.done()
    return await asking


async def patience_ends(loop_time: LoopTime, asking: asyncio.Task[Any]) -> None:
    await loop_time.advance(0.0)
    for _ in range(PATIENCE_TICKS):
        assert not asking.done()
        await loop_time.advance((PATIENCE_S + PER_CALL_S) / PATIENCE_TICKS + TINY_S)


def reserve(
    limiter: LimiterServicer, deadline_s: float = math.inf
) -> Coroutine[Any, Any, pb.ReserveResponse]:
    request = pb.ReserveRequest(hold_id="a", amount=pb.Amount(microusd=5))
    return limiter.Reserve(request, ANN._replace(deadline_s=deadline_s))


def patient(limiters: Limiters, store_loss: str) -> tuple[LimiterServicer, LedgerStore]:
    limiter = limiters.make([{**MONEY, "store_loss": store_loss}])
    store: LedgerStore = limiters.stores[-1]
    store._patience = Patience(PATIENCE_S, 5.0)
    return limiter, store


async def test_the_first_who_asks_a_store_that_hangs_after_the_start_waits_no_longer_than_others(
    limiters: Limiters, loop_time: LoopTime
) -> None:
    limiter, store = patient(limiters, "open")
    await store.warm()
    async with Stopped(store):
        assert (
            await first_answer(loop_time, reserve(limiter))
        ).decision.verdict == pb.VERDICT_ALLOWED


@pytest.mark.parametrize("store_loss", ["lease", "closed"])
@pytest.mark.parametrize(("left_s", "waited_s"), [(math.inf, STORE_WAIT_S), (1.0, STORE_SHARE)])
async def test_a_rule_that_refuses_without_a_store_waits_for_it_within_the_callers_time(
    limiters: Limiters, loop_time: LoopTime, store_loss: str, left_s: float, waited_s: float
) -> None:
    limiter, store = patient(limiters, store_loss)
    await store.warm()
    async with Stopped(store):
        asking = asyncio.create_task(reserve(limiter, limiters.clock.monotonic() + left_s))
        await patience_ends(loop_time, asking)
        await loop_time.advance(waited_s - 0.01)
        assert not asking.done()
        await loop_time.advance(0.02)
        assert (await asking).decision.verdict == pb.VERDICT_STORE_UNAVAILABLE


@pytest.mark.parametrize("store_loss", ["lease", "closed"])
async def test_a_store_that_goes_on_in_time_decides_after_all_and_holds_once(
    limiters: Limiters, loop_time: LoopTime, store_loss: str
) -> None:
    limiter, store = patient(limiters, store_loss)
    await store.warm()
    async with Stopped(store):
        asking = asyncio.create_task(reserve(limiter))
        await patience_ends(loop_time, asking)
        await loop_time.advance(0.3)
        assert not asking.done()
    assert (await asking).decision.verdict == pb.VERDICT_ALLOWED
    usage = await limiter.GetUsage(pb.GetUsageRequest(), ANN)
    assert usage.rules[0].held.microusd == 5


async def test_a_store_that_was_away_at_the_start_is_known_when_it_is_found(
    limiters: Limiters, loop_time: LoopTime
) -> None:
    limiter, store = patient(limiters, "open")
    real, store.client = store.client, open_store("unix:///nowhere.sock", retries=0)
    await store.warm()
    at_once = asyncio.create_task(reserve(limiter))
    await loop_time.advance(0.0)
    assert at_once.done()
    assert (await at_once).decision.verdict == pb.VERDICT_ALLOWED
    await store.client.aclose()
    store.client = real
    while store._probe is not None:
        await limiters.clock.advance(1.0)
        await real.ping()
    async with Stopped(store):
        assert (
            await first_answer(loop_time, reserve(limiter))
        ).decision.verdict == pb.VERDICT_ALLOWED
