"""Stale answers: served for a while where that is configured, and refreshed by one caller."""

from __future__ import annotations

import time
from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.cache.settings import CacheSection
from penstock.rpc.call import Call, Principal
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.clock import FakeClock
from pydantic import ValidationError

MISS = common_pb2.CACHE_OUTCOME_MISS
ANN = Call(Principal("acme", team="core", tags=("support",)))
FRESH_S = 100.0


async def cache_with_stale_entry(rig: Any, **section: Any) -> tuple[Any, FakeClock]:
    """A cache with one entry that is past its time; Redis, by its own clock, has it still."""
    clock = FakeClock(time.time())
    cache = await rig.make(clock, ttl_s=FRESH_S, ttl_jitter=0, **section)
    await rig.add(cache, chat("hello"), chat_result("old"))
    await clock.advance(FRESH_S + 1)
    return cache, clock


async def test_a_stale_answer_is_served_while_one_caller_fetches_the_new_one(rig: Any) -> None:
    cache, _ = await cache_with_stale_entry(rig, stale_while_revalidate_s=60)
    first = await rig.look_up(cache, chat("hello"))
    others = [await rig.look_up(cache, chat("hello")) for _ in range(3)]
    assert first.receipt.rule == "exact: stale, fetched anew"
    assert {other.receipt.rule for other in others} == {"exact: stale"}
    assert {one.result.generate.message.content for one in (first, *others)} == {"old"}
    assert first.token
    assert not any(other.token for other in others)
    assert (await rig.store(cache, first, chat_result("new"))).stored
    again = await rig.look_up(cache, chat("hello"))
    assert (again.receipt.rule, again.result.generate.message.content) == ("exact", "new")


async def test_after_a_refresh_without_an_answer_the_next_caller_refreshes(rig: Any) -> None:
    cache, clock = await cache_with_stale_entry(rig, stale_while_revalidate_s=300)
    first = await rig.look_up(cache, chat("hello"))
    assert not (await cache.servicer.Store(pb.StoreRequest(token=first.token), ANN)).stored
    second = await rig.look_up(cache, chat("hello"))
    assert second.receipt.rule == "exact: stale, fetched anew"
    assert (await rig.look_up(cache, chat("hello"))).receipt.rule == "exact: stale"
    await clock.advance(61)  # the second caller's claim has expired
    assert (await rig.look_up(cache, chat("hello"))).receipt.rule == "exact: stale, fetched anew"


async def test_past_the_window_or_too_old_for_the_caller_a_stale_entry_is_a_miss(rig: Any) -> None:
    cache, clock = await cache_with_stale_entry(rig, stale_while_revalidate_s=60)
    missed = await rig.look_up(cache, chat("hello"), max_age_ms=1_000)
    assert missed.receipt.outcome == MISS
    await cache.servicer.Store(pb.StoreRequest(token=missed.token), ANN)  # nobody waits for it
    await clock.advance(60)
    missed = await rig.look_up(cache, chat("hello"))
    assert missed.receipt.outcome == MISS


async def test_without_a_configured_window_no_stale_answer_is_served(rig: Any) -> None:
    cache, _ = await cache_with_stale_entry(rig, stale_while_revalidate_s=60)
    cache.reload(CacheSection())
    assert (await rig.look_up(cache, chat("hello"))).receipt.outcome == MISS


async def test_entries_stored_together_expire_at_different_times(rig: Any) -> None:
    cache = await rig.make(ttl_s=1_000, ttl_jitter=0.5)
    for number in range(30):
        await rig.add(cache, chat(f"q{number}"), chat_result("x"))
    lives = [
        await rig.client.pttl(name)
        async for name in rig.client.scan_iter(match="penstock:cache:*:e:*")
    ]
    assert len(lives) == 30
    assert all(490_000 < life <= 1_000_000 for life in lives)
    assert max(lives) - min(lives) > 200_000


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValidationError, match="stale_while_revalidate_s"):
        CacheSection.model_validate({"stale_while_revalidate_s": -1})
