"""The work queue on a real Redis: lost entries are found however much is pending before them, and
oddities stop nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.service.work_stream import GROUP, WorkStream

STREAM = "work"
LEASE_MS = 100


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "redis") as url:
        client = open_store(url)
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        yield client
        await client.aclose()


async def taken_by_the_dead(store: redis.asyncio.Redis, *names: str) -> list[bytes]:
    """Entries that a router took before it crashed."""
    entries = [await store.xadd(STREAM, {"id": name}) for name in names]
    await store.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=len(names))
    return entries


async def test_what_was_lost_is_found_behind_all_that_is_only_slow(
    store: redis.asyncio.Redis,
) -> None:
    never, began = asyncio.Event(), asyncio.Semaphore(0)

    async def slowly(_: str) -> None:
        began.release()
        await never.wait()

    busy = WorkStream(store, STREAM, slowly, SystemClock(), slots=40, lease_ms=LEASE_MS)
    for number in range(40):
        await store.xadd(STREAM, {"id": f"slow-{number}"})
    busy.start()
    for _ in range(40):
        await began.acquire()
    await taken_by_the_dead(store, "lost")
    found = asyncio.Event()

    async def note(work_id: str) -> None:
        if work_id == "lost":
            found.set()

    other = WorkStream(store, STREAM, note, SystemClock(), slots=1, lease_ms=LEASE_MS)
    other.start()
    try:
        await asyncio.wait_for(found.wait(), 10)
    finally:
        await other.close()
        await busy.close()


async def test_an_entry_that_was_deleted_while_pending_stops_nobody(
    store: redis.asyncio.Redis,
) -> None:
    gone, _ = await taken_by_the_dead(store, "deleted", "lost")
    await store.xdel(STREAM, gone)
    handled: asyncio.Queue[str] = asyncio.Queue()
    stream = WorkStream(store, STREAM, handled.put, SystemClock(), slots=4, lease_ms=LEASE_MS)
    stream.start()
    try:
        assert await asyncio.wait_for(handled.get(), 10) == "lost"
        await store.xadd(STREAM, {"id": "new"})
        assert await asyncio.wait_for(handled.get(), 10) == "new"
    finally:
        await stream.close()
