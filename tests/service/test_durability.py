"""When a write is on a store's disk, and what is said of a store that may lose the ledger."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from penstock.service.durability import (
    MARK,
    Fsyncs,
    NotSynced,
    StoreFacts,
    confirmation_of,
    ledger_warnings,
    store_facts,
)
from penstock.service.store import Appendfsync, embedded_store, open_store

SOUND = StoreFacts((9, 1), True, "everysec", 0, "noeviction")
LEDGER, CACHE = "redis://a:6379/0", "redis://b:6379/0"


@pytest.mark.parametrize(
    ("changes", "shown_by"),
    [
        ({}, "waitaof"),
        ({"appendfsync": ""}, "waitaof"),
        ({"version": (6, 2)}, "none"),
        ({"appendfsync": "always"}, "reply"),
        ({"appendfsync": "always", "version": (6, 2)}, "reply"),
        ({"has_append_only_file": False, "appendfsync": "always"}, "none"),
    ],
)
def test_what_shows_that_a_write_is_on_the_disk(changes: dict[str, Any], shown_by: str) -> None:
    assert confirmation_of(SOUND.__class__(**{**vars(SOUND), **changes})) == shown_by


@pytest.mark.parametrize(
    ("changes", "cache_url", "words"),
    [
        ({}, CACHE, []),
        ({}, "", []),
        ({}, "redis://:secret@a:6379/1", ["name one server"]),
        ({"max_memory_bytes": 1, "eviction": "allkeys-lru"}, CACHE, ["may evict budgets"]),
        ({"has_append_only_file": False}, CACHE, ["appendonly no"]),
        ({"version": (7, 0)}, CACHE, ["no WAITAOF before 7.2"]),
    ],
)
def test_a_store_that_may_lose_the_ledger_is_named(
    changes: dict[str, Any], cache_url: str, words: list[str]
) -> None:
    facts = SOUND.__class__(**{**vars(SOUND), **changes})
    warnings = list(ledger_warnings(facts, LEDGER, cache_url))
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
async def test_what_is_waited_for_outlives_a_kill_of_the_store(
    tmp_path: Path, appendfsync: Appendfsync
) -> None:
    async with embedded_store(tmp_path, appendfsync) as url, open_store(url) as client:
        fsyncs = Fsyncs(client)
        assert (await fsyncs.learn()) == await store_facts(client)
        await asyncio.gather(*(_write(client, fsyncs, number) for number in range(50)))
        os.kill(int((await client.info("server"))["process_id"]), signal.SIGKILL)
        await fsyncs.close()
    async with embedded_store(tmp_path) as url, open_store(url) as client:
        assert await client.scard("written") == 50


async def _write(client: redis.asyncio.Redis, fsyncs: Fsyncs, number: int) -> None:
    await client.sadd("written", str(number))
    await fsyncs.wait()


async def test_many_who_wait_share_one_write(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as url, open_store(url) as client:
        fsyncs = Fsyncs(client)
        await fsyncs.learn()
        await asyncio.gather(*(fsyncs.wait() for _ in range(100)))
        sets = (await client.info("commandstats"))["cmdstat_set"]["calls"]
        assert sets <= 2
        assert await client.get(MARK) == b"1"
        await fsyncs.close()


async def test_a_store_that_does_not_sync_is_noticed(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as url, open_store(url) as client:
        fsyncs = Fsyncs(client)
        await fsyncs.learn()
        await client.config_set("appendfsync", "no")
        with pytest.raises(NotSynced):
            await fsyncs.wait()
        await fsyncs.close()
