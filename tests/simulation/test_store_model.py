"""The store model answers what the real store answers, to the same client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from penstock.service.store import embedded_store
from penstock.simulation.fault_plan import FaultPlan
from penstock.simulation.store_server import Life, StoreServer
from penstock.simulation.virtual_loop import run_virtual
from redis.exceptions import ResponseError

Steps = Callable[[redis.asyncio.Redis], Awaitable[list[Any]]]


async def texts_and_hashes(client: redis.asyncio.Redis) -> list[Any]:
    return [
        await client.set("a", b"\xff\x00"),
        await client.get("a"),
        await client.mget(["a", "b"]),
        await client.strlen("a"),
        await client.hset("h", mapping={"x": 1, "y": 2}),
        await client.hmget("h", ["x", "z"]),
        await client.hincrby("h", "x", 4),
        await client.hgetall("h"),
        await client.hdel("h", "x", "y"),
        await client.exists("h"),
        await client.getdel("a"),
        await client.get("a"),
    ]


async def sets_and_scores(client: redis.asyncio.Redis) -> list[Any]:
    await client.zadd("z", {"b": 2})
    await client.zadd("z", {"a": 2})
    await client.zadd("z", {"c": 1})
    return [
        await client.sadd("s", "x", "y"),
        await client.srem("s", "x"),
        await client.smembers("s"),
        await client.zrange("z", 0, -1),
        await client.zrange("z", 0, 0),
        await client.zcard("z"),
        await client.zremrangebyscore("z", "-inf", 1),
        await client.zrem("z", "a", "nothing"),
        await client.zrange("z", 0, -1),
    ]


async def work_queues(client: redis.asyncio.Redis) -> list[Any]:
    await client.xgroup_create("w", "g", id="0", mkstream=True)
    for number in range(3):
        await client.xadd("w", {"id": str(number)})
    read = await client.xreadgroup("g", "one", {"w": ">"}, count=2)
    (_, given), (_, missed) = read[0][1]
    _, claimed, *_ = await client.xautoclaim("w", "g", "two", min_idle_time=0, start_id="0-0")
    first = read[0][1][0][0]
    acknowledged = await client.xack("w", "g", first)
    rest = await client.xreadgroup("g", "one", {"w": ">"}, count=5)
    none = await client.xreadgroup("g", "one", {"w": ">"}, count=5, block=10)
    try:
        await client.xgroup_create("w", "g", id="0")
    except ResponseError as error:
        refused = str(error).partition(" ")[0]
    return [
        given,
        missed,
        [fields for _, fields in claimed],
        acknowledged,
        [fields for _, fields in rest[0][1]],
        bool(none),
        refused,
        await client.xlen("w"),
    ]


async def scripts(client: redis.asyncio.Redis) -> list[Any]:
    sha = await client.script_load("return {KEYS[1], ARGV[1], 3.7, redis.call('GET', 'no')}")
    wrong = "return redis.call('HGET', 'text', 'f')"
    await client.set("text", "t")
    try:
        await client.eval(wrong, 0)
    except ResponseError as error:
        refused = "WRONGTYPE" in str(error)
    return [
        await client.evalsha(sha, 1, "k", b"\xfe"),
        await client.eval("return cjson.encode(cjson.decode(ARGV[1]))", 0, '[1,"é",[2]]'),
        refused,
    ]


async def transactions(client: redis.asyncio.Redis) -> list[Any]:
    async with client.pipeline(transaction=True) as pipe:
        pipe.set("a", 1)
        pipe.incrby("a", 2)
        return list(await pipe.execute())


STEPS: tuple[Steps, ...] = (texts_and_hashes, sets_and_scores, work_queues, scripts, transactions)


@pytest.mark.parametrize("steps", STEPS)
async def test_the_model_answers_as_the_store_does(steps: Steps, tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as url:
        pool = redis.asyncio.ConnectionPool.from_url(url, protocol=2)
        async with redis.asyncio.Redis.from_pool(pool) as client:
            expected = await steps(client)
    assert await asyncio.to_thread(lambda: run_virtual(on_model(steps))) == expected


async def on_model(steps: Steps) -> list[Any]:
    server = StoreServer("store", FaultPlan(0, {}))
    async with server.opening(Life())("redis://model") as client:
        return await steps(client)


def test_keys_expire_in_virtual_time() -> None:
    async def steps(client: redis.asyncio.Redis) -> list[Any]:
        await client.set("a", 1, px=1_000)
        before = await client.get("a")
        await asyncio.sleep(1.1)
        return [before, await client.get("a")]

    assert run_virtual(on_model(steps)) == [b"1", None]


def test_a_channel_reaches_who_listens() -> None:
    async def steps(client: redis.asyncio.Redis) -> list[Any]:
        async with client.pubsub() as channel:
            await channel.subscribe("c")
            await channel.get_message(timeout=1.0)
            await client.publish("c", "hello")
            message = await channel.get_message(timeout=1.0)
            return [message["data"] if message else None]

    assert run_virtual(on_model(steps)) == [b"hello"]
