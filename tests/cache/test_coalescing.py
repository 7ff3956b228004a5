"""Coalescing: identical look-ups in flight wait for one answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.build import Cache
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

ANN = Call(Principal("acme", team="core", tags=("support",)))
MISS = common_pb2.CACHE_OUTCOME_MISS


async def followers_of(rig: Any, cache: Cache, count: int) -> list[asyncio.Task[pb.LookUpResponse]]:
    """Look-ups that wait for the answer of an identical one."""
    tasks = [asyncio.create_task(rig.look_up(cache, chat("same"))) for _ in range(count)]
    await eventually(lambda: cache.pending.waiting_count == count)
    return tasks


async def store_nothing(cache: Cache, missed: pb.LookUpResponse) -> None:
    """Say that no answer will come for a look-up that missed."""
    await cache.servicer.Store(pb.StoreRequest(token=missed.token), ANN)


async def test_followers_get_the_leaders_answer_and_one_takes_over_when_it_fails(rig: Any) -> None:
    cache = await rig.make()
    leader = await rig.look_up(cache, chat("same"))
    followers = await followers_of(rig, cache, 5)
    assert not any(task.done() for task in followers)
    await store_nothing(cache, leader)
    done, waiting = await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    second = done.pop().result()
    assert second.receipt.outcome == MISS
    await rig.store(cache, second, chat_result("yes"))
    for task in waiting:
        found = await task
        assert (found.receipt.rule, found.result.generate.message.content) == ("coalesced", "yes")


async def test_a_follower_that_leaves_does_not_become_the_leader(rig: Any) -> None:
    cache = await rig.make()
    leader = await rig.look_up(cache, chat("same"))
    first, second = await followers_of(rig, cache, 2)
    first.cancel()
    await asyncio.wait([first])
    await store_nothing(cache, leader)
    assert (await asyncio.wait_for(second, 5)).receipt.outcome == MISS


async def test_a_refresh_without_an_answer_does_not_end_another_callers_look_up(rig: Any) -> None:
    """A stale answer is too old for a caller that wants a newer one: that caller leads."""
    clock = FakeClock(time.time())
    cache = await rig.make(clock, ttl_s=10, ttl_jitter=0, stale_while_revalidate_s=60)
    await rig.add(cache, chat("same"), chat_result("old"))
    await clock.advance(11)
    refresh = await rig.look_up(cache, chat("same"))
    leader = await rig.look_up(cache, chat("same"), max_age_ms=1_000)
    assert (refresh.receipt.rule, leader.receipt.outcome) == ("exact: stale, fetched anew", MISS)
    follower = asyncio.create_task(rig.look_up(cache, chat("same"), max_age_ms=1_000))
    await eventually(lambda: cache.pending.waiting_count == 1)
    await store_nothing(cache, refresh)
    await rig.store(cache, leader, chat_result("new"))
    assert (await follower).result.generate.message.content == "new"


async def test_nobody_waits_for_a_look_up_whose_caller_left_before_it_missed(rig: Any) -> None:
    """The word of a caller that leaves can overtake its look-up, which goes on for a moment."""
    cache = await rig.make()
    token = b"of the caller"
    with pytest.raises(Fault, match="unknown"):
        await cache.servicer.Store(pb.StoreRequest(token=token), ANN)
    abandoned = await rig.look_up(cache, chat("same"), token=token)
    assert abandoned.receipt.outcome == MISS
    next_one = await asyncio.wait_for(rig.look_up(cache, chat("same")), 5)
    assert next_one.receipt.outcome == MISS
    (follower,) = await followers_of(rig, cache, 1)
    await rig.store(cache, next_one, chat_result("yes"))
    assert (await follower).receipt.rule == "coalesced"
