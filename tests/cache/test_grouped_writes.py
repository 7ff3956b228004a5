"""Answers that come together are written together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entries import Entry
from penstock.cache.storage.entry_store import EntryStore
from penstock.cache.storage.grouped_writes import GroupedWrites

from .conftest import Rig

TTL_MS = 60_000


class CountedEntries(EntryStore):
    """Counts the groups that are written."""

    def __init__(self, rig: Rig, **section: object) -> None:
        super().__init__(rig.client, b"secret", CacheSection(**section), Random(1))  # type: ignore[arg-type]
        self.groups: list[int] = []
        self.is_away = False

    async def put(self, tenant: str, entries: Sequence[Entry], ttl_ms: int) -> frozenset[str]:
        if self.is_away:
            raise ConnectionRefusedError
        self.groups.append(len(entries))
        return await super().put(tenant, entries, ttl_ms)


def entry(number: int, content: str = "answer") -> Entry:
    result = inference_pb2.TaskResult()
    result.generate.message.content = content
    return Entry(f"{number:032x}", result, 1, 0, "m", "", ())


async def test_the_first_is_written_at_once_and_those_that_follow_together(rig: Rig) -> None:
    entries = CountedEntries(rig)
    writes = GroupedWrites(entries)
    first = asyncio.create_task(writes.put("acme", entry(0), TTL_MS))
    await asyncio.sleep(0)  # begins to write
    await asyncio.sleep(0)
    others = [asyncio.create_task(writes.put("acme", entry(n), TTL_MS)) for n in range(1, 9)]
    assert await asyncio.gather(first, *others) == [True] * 9
    assert entries.groups == [1, 8]
    for number in range(9):
        assert await entries.get("acme", entry(number).key, 0, 0) is not None
    await writes.close()


async def test_tenants_are_written_apart(rig: Rig) -> None:
    entries = CountedEntries(rig)
    writes = GroupedWrites(entries)
    tenants = ("acme", "other", "acme")
    puts = [writes.put(tenant, entry(n), TTL_MS) for n, tenant in enumerate(tenants)]
    assert await asyncio.gather(*puts) == [True] * 3
    assert sorted(entries.groups) == [1, 2]
    assert await entries.get("other", entry(0).key, 0, 0) is None
    await writes.close()


async def test_what_is_too_large_is_told_to_whoever_brought_it(rig: Rig) -> None:
    writes = GroupedWrites(CountedEntries(rig, tenant_bytes=65_536, compress_above_bytes=1 << 20))
    small, large = entry(1), entry(2, "x" * 70_000)
    puts = [writes.put("acme", one, TTL_MS) for one in (small, large)]
    assert await asyncio.gather(*puts) == [True, False]
    await writes.close()


async def test_a_store_that_does_not_answer_fails_each_and_the_next_group_is_tried(
    rig: Rig,
) -> None:
    entries = CountedEntries(rig)
    entries.is_away = True
    writes = GroupedWrites(entries)
    results = await asyncio.gather(
        *(writes.put("acme", entry(n), TTL_MS) for n in range(2)), return_exceptions=True
    )
    assert all(isinstance(result, ConnectionRefusedError) for result in results)
    entries.is_away = False
    assert await writes.put("acme", entry(3), TTL_MS)
    await writes.close()


async def test_a_correction_waits_for_what_is_being_written(rig: Rig) -> None:
    entries = CountedEntries(rig)
    writes = GroupedWrites(entries)
    put = asyncio.create_task(writes.put("acme", entry(1), TTL_MS))
    await asyncio.sleep(0)
    await writes.written()
    assert await entries.remove("acme", [entry(1).key]) == 1
    assert await put
    await writes.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_caller_that_leaves_holds_up_nobody(rig: Rig, times: int) -> None:
    writes = GroupedWrites(CountedEntries(rig))
    left = [asyncio.create_task(writes.put("acme", entry(n), TTL_MS)) for n in range(times)]
    await asyncio.sleep(0)
    for task in left:
        task.cancel()
    assert await writes.put("acme", entry(9), TTL_MS)
    await writes.close()
