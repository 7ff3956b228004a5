"""Reads that share one connection: each caller has its own reply, whatever becomes of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from penstock.service.store import embedded_store, open_store
from penstock.service.store_reads import StoreReads
from penstock.testkit.eventually import eventually
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "store") as url, open_store(url) as client:
        yield client


@pytest.fixture
async def reads(store: redis.asyncio.Redis) -> AsyncIterator[StoreReads]:
    made = StoreReads(store)
    yield made
    await made.close()


async def fill(store: redis.asyncio.Redis, count: int) -> list[bytes]:
    """So many keys `key N`; their values."""
    values = [b"x" * number + b"\r\n$3\r\n" for number in range(count)]
    await asyncio.gather(*(store.set(f"key {n}", value) for n, value in enumerate(values)))
    return values


async def test_each_caller_has_its_own_reply_over_one_connection(
    store: redis.asyncio.Redis, reads: StoreReads
) -> None:
    values = await fill(store, 200)
    before = len(await store.client_list())
    found = await asyncio.gather(*(reads.get(f"key {n}") for n in range(200)))
    assert found == values
    assert len(await store.client_list()) <= before + 1


async def test_what_is_not_there_and_what_cannot_be_read_disturb_nobody(
    store: redis.asyncio.Redis, reads: StoreReads
) -> None:
    values = await fill(store, 3)
    await store.rpush("list", "a")
    names = ("key 0", "absent", "list", "key 1", "key 2")
    found = await asyncio.gather(*(reads.get(name) for name in names), return_exceptions=True)
    assert isinstance(found[2], ResponseError)
    assert [found[0], found[1], *found[3:]] == [values[0], None, *values[1:]]


async def test_callers_who_leave_take_no_reply_of_others(
    store: redis.asyncio.Redis, reads: StoreReads
) -> None:
    values = await fill(store, 50)
    await reads.get("key 0")
    asked = [asyncio.create_task(reads.get(f"key {n}")) for n in range(50)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    assert await asyncio.gather(*asked[1::2]) == values[1::2]
    assert await reads.get("key 7") == values[7]


async def test_a_connection_that_breaks_fails_nobody(
    store: redis.asyncio.Redis, reads: StoreReads
) -> None:
    values = await fill(store, 20)
    await reads.get("key 0")
    await store.client_pause(100)
    asked = [asyncio.create_task(reads.get(f"key {n}")) for n in range(20)]
    await asyncio.sleep(0)
    await store.client_kill_filter(_type="normal", skipme=True)
    assert await asyncio.gather(*asked) == values
    assert await reads.get("key 3") == values[3]


async def test_a_store_that_does_not_answer_is_given_up_and_found_again(tmp_path: Path) -> None:
    async with (
        embedded_store(tmp_path / "store") as url,
        open_store(url, timeout_s=0.1, retries=0) as client,
    ):
        reads = StoreReads(client)
        await client.set("key", "value")
        assert await reads.get("key") == b"value"
        await client.client_pause(700)
        found = await asyncio.gather(*(reads.get("key") for _ in range(9)), return_exceptions=True)
        assert all(isinstance(each, StoreTimeoutError | StoreConnectionError) for each in found)

        async def answers() -> None:
            assert await reads.get("key") == b"value"

        await eventually(answers, not_yet=(RedisError,))
        await reads.close()


async def test_without_a_store_it_is_said(tmp_path: Path) -> None:
    client = open_store(f"unix://{tmp_path}/nothing", retries=0)
    reads = StoreReads(client)
    found = await asyncio.gather(*(reads.get("key") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, StoreConnectionError) for each in found)
    await reads.close()
    await client.aclose()
