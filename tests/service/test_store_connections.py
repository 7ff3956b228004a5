"""What is sent to a store is waited for only where the socket does not take it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from penstock.service.store import embedded_store, open_store
from penstock.service.store_connections import MAX_CONNECTIONS
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeout

LARGE = b"x" * (16 << 20)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "store") as url, open_store(url) as client:
        yield client


async def test_values_of_every_size_arrive(store: redis.asyncio.Redis) -> None:
    for size in (0, 1, 70_000, len(LARGE)):
        await store.set("key", LARGE[:size])
        assert await store.strlen("key") == size


async def test_many_at_once_are_answered_each_by_its_own(store: redis.asyncio.Redis) -> None:
    numbers = range(50)
    await asyncio.gather(*(store.set(f"key {n}", n) for n in numbers))
    found = await asyncio.gather(*(store.get(f"key {n}") for n in numbers))
    assert [int(each) for each in found] == list(numbers)


async def test_more_commands_than_connections_wait_for_their_turn(
    store: redis.asyncio.Redis,
) -> None:
    # given a store that does not answer
    await store.client_pause(200)
    # when more is asked than there are connections, and some callers leave
    asked = [asyncio.create_task(store.incr("count")) for _ in range(3 * MAX_CONNECTIONS)]
    await asyncio.sleep(0)
    for task in asked[-20:]:
        task.cancel()
    # then the others are answered once it answers
    found = await asyncio.gather(*asked[:-20])
    assert sorted(found)[-1] >= len(found)
    # and no turn is lost
    assert await store.get("count")


async def test_a_command_does_not_wait_for_ever_for_a_connection(tmp_path: Path) -> None:
    async with (
        embedded_store(tmp_path / "store") as url,
        open_store(url, timeout_s=0.2, retries=0) as client,
    ):
        await client.client_pause(3_000)
        asked = [client.get("key") for _ in range(MAX_CONNECTIONS + 20)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, StoreTimeout | StoreConnectionError) for error in found)
        assert "No connection available." in map(str, found)


@pytest.mark.parametrize("value", [b"small", LARGE])
async def test_a_server_that_reads_no_more_is_given_up_in_time(value: bytes) -> None:
    over = asyncio.Event()

    async def greet_and_fall_silent(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while b"SET\r\n" not in (said := await reader.read(1 << 16)):
            writer.write(b"+OK\r\n" * said.count(b"*"))
        await over.wait()
        writer.close()

    async with await asyncio.start_server(greet_and_fall_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = open_store(f"redis://127.0.0.1:{port}", timeout_s=0.2, retries=0)
        with pytest.raises(StoreTimeout):
            await client.set("key", value)
        over.set()
        await client.aclose()


async def test_a_connection_that_the_server_closed_is_made_anew(
    store: redis.asyncio.Redis,
) -> None:
    await store.set("key", 1)
    other = await store.client_id()
    await store.execute_command("CLIENT", "KILL", "ID", str(other), "SKIPME", "no")
    try:
        value = await store.get("key")
    except StoreConnectionError:
        value = await store.get("key")
    assert value == b"1"


async def test_a_read_may_wait_at_the_store_for_longer_than_other_commands_take(
    tmp_path: Path,
) -> None:
    async with (
        embedded_store(tmp_path / "store") as url,
        open_store(url, timeout_s=1.0, retries=0) as client,
    ):
        # given a client whose commands have 1 s, when a read waits for 1.5 s and nothing comes
        # then it ends without entries, and not as one that the store did not answer
        assert not await client.xread({"stream": "$"}, block=1_500)
        await client.xgroup_create("stream", "readers", mkstream=True)
        assert not await client.xreadgroup("readers", "me", {"stream": ">"}, count=1, block=1_500)
        # and what comes meanwhile ends the wait
        waiting = asyncio.create_task(client.xread({"stream": "$"}, block=60_000))
        while not (await client.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)
        await client.xadd("stream", {"field": 1})
        assert await waiting


async def test_a_store_that_hangs_under_a_read_is_given_up(tmp_path: Path) -> None:
    async with (
        embedded_store(tmp_path / "store") as url,
        open_store(url, timeout_s=0.2, retries=0) as client,
    ):
        await client.client_pause(10_000)
        with pytest.raises(StoreTimeout):
            await client.xread({"stream": "$"}, block=100)
