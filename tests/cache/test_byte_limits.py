"""Limits in bytes: held after restarts and over replicas, and what is evicted first."""

from __future__ import annotations

from typing import Any

import numpy as np
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.storage.eviction import S3Fifo
from penstock.rpc.call import Call, Principal
from penstock.testkit.chats import chat, chat_result
from penstock.testkit.eventually import eventually

ANN = Call(Principal("acme", team="core", tags=("support",)))
LIMIT = 1 << 16


def long_text(number: int) -> str:
    """6,000 characters that do not compress."""
    return np.random.default_rng(number).bytes(3_000).hex()


async def test_bytes_stay_within_the_limit_also_after_a_restart(rig: Any) -> None:
    cache = await rig.make(tenant_bytes=LIMIT)
    for number in range(40):
        await rig.add(cache, chat(f"q{number}"), chat_result(long_text(number)))
    assert cache.entries.size_bytes <= LIMIT
    restarted = await rig.make(tenant_bytes=LIMIT)
    assert restarted.entries.size_bytes == cache.entries.size_bytes
    assert len(restarted.entries) == len(cache.entries) < 40


async def test_the_limit_holds_for_all_replicas_together(rig: Any) -> None:
    """Each replica by itself stores less than the limit."""
    caches = [await rig.make(tenant_bytes=LIMIT, total_bytes=1 << 20) for _ in range(2)]
    for number in range(40):
        await rig.add(caches[number % 2], chat(f"q{number}"), chat_result(long_text(number)))

    async def bytes_in_store() -> int:
        names = [name async for name in rig.client.scan_iter(match="penstock:cache:*:e:*")]
        return sum([await rig.client.strlen(name) for name in names])

    async def is_within_limit() -> bool:
        return await bytes_in_store() <= LIMIT

    await eventually(is_within_limit)
    assert await bytes_in_store() > 20_000


def test_used_entries_stay_and_those_that_save_least_per_byte_are_evicted_first() -> None:
    queue = S3Fifo(10_000)
    for number in range(8):
        queue.add(f"n{number}", 1_000, 10)
    queue.record_use("n0")
    queue.add("expensive", 1_000, 100_000)
    evicted = [name for number in range(6) for name in queue.add(f"m{number}", 1_000, 10)]
    assert queue.size_bytes <= 10_000
    assert "n0" in queue
    assert "expensive" in queue
    assert set(evicted) >= {"n1", "n2"}


def test_an_entry_larger_than_the_limit_is_itself_evicted() -> None:
    assert S3Fifo(10_000).add("giant", 20_000, 1) == ["giant"]


async def test_a_group_holds_only_keys_of_entries_that_are_stored(rig: Any) -> None:
    """Keys of evicted entries leave their groups, and a short-lived entry does not shorten its
    group's life.
    """
    long_lived = await rig.make(tenant_bytes=LIMIT, ttl_s=900_000.0)
    cache = await rig.make(tenant_bytes=LIMIT, ttl_s=60.0)

    async def add(text: str, body: str = "x", cache: Any = cache) -> None:
        missed = await rig.look_up(cache, chat(text))
        await rig.store(cache, missed, chat_result(body), tags=["t"])

    await add("long", cache=long_lived)
    await add("short")
    (group,) = [name async for name in rig.client.scan_iter(match="penstock:cache:*:g:t:t")]
    assert await rig.client.pttl(group) > 700_000_000
    for number in range(60):
        await add(f"q{number}", "y".join(str(n * number) for n in range(2_000)))

    async def grouped() -> None:
        assert await rig.client.zcard(group) == len(cache.entries) < 60

    await eventually(grouped)  # What was evicted leaves its groups after the answer.
    left = len(cache.entries)
    removed = await cache.servicer.Invalidate(pb.InvalidateRequest(tags=["t"]), ANN)
    assert removed.removed == left
    assert not await rig.client.exists(group)
