"""Decisions of the ledger through its store, against what the store itself can do: as many SETs as
a decision writes, of the same size in its append-only file, pipelined at the same depth by the same
client on the same store. The sides take turns.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from penstock.bench.limiter.in_process import RULES
from penstock.limiter.counters import Counter, SpendPath, counters_of
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import Reservation
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.rpc.errors import Fault
from penstock.rpc.micro_batch import MicroBatcher
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store

DEPTH = 64
"""Decisions, or the SETs of as many, that are under way at a time."""
WRITES = (
    frozenset(("set", "incrby", "del", "rename", "pexpire"))
    | frozenset(("hset", "hdel", "hincrby", "sadd", "srem"))
    | frozenset(("zadd", "zrem", "xadd", "xdel"))
)
"""The writing commands that the script uses."""
COUNTED = 2_000
SET_OVERHEAD_BYTES = 60
"""What the append-only file needs for a SET beside its value, about."""
PATH = SpendPath("acme", "core", "ann", "k1", ("batch",), "m")
AMOUNTS = [1, 120, 50]
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Decisions:
    """What was measured.

    Attributes:
        turns: decisions a second, and as many SETs as one decision writes a second, by turn.
        writes: writing commands of a decision.
        bytes_each: bytes of the append-only file that a decision needs.
    """

    turns: Sequence[tuple[float, float]]
    writes: float
    bytes_each: float


async def measure(folder: Path, turns: int, turn_s: float) -> Decisions:
    """Take turns of `turn_s`."""
    async with embedded_store(folder) as url, open_store(url, timeout_s=5.0) as client:
        clock = SystemClock()
        store = LedgerStore(open_store(url, timeout_s=5.0), clock, StoreTimings(timeout_s=5.0))
        section = LimitsSection.model_validate({"rules": list(RULES)})
        counters = counters_of(section, PATH, clock.time())
        numbers = itertools.count()

        async def decide() -> None:
            await _decide(store, counters, next(numbers))

        writes, bytes_each = await _writes_of(client, decide)
        value = b"x" * max(1, round(bytes_each / writes) - SET_OVERHEAD_BYTES)
        write = _setter(client, round(writes), value)
        rates = [(await _rate(decide, turn_s), await _rate(write, turn_s)) for _ in range(turns)]
        await store.close()
    return Decisions(rates, writes, bytes_each)


async def _decide(store: LedgerStore, counters: Sequence[Counter], number: int) -> None:
    reservation = Reservation(AMOUNTS, AMOUNTS, AMOUNTS, ttl_ms=60_000)
    await store.reserve(PATH.organisation, f"h{number}", counters, reservation)


def _setter(client: redis.asyncio.Redis, count: int, value: bytes) -> Work:
    """Work that sends `count` SETs, batched with those of others as decisions are."""

    async def send(batch: Sequence[int]) -> list[bool | Fault]:
        pipe = client.pipeline(transaction=False)
        for number in batch:
            for place in range(count):
                pipe.set(f"bench:{number % 10_000}:{place}", value)
        await pipe.execute()
        return [True] * len(batch)

    batcher: MicroBatcher[int, bool] = MicroBatcher(send)
    numbers = itertools.count()

    async def write() -> None:
        await batcher(next(numbers))

    return write


async def _rate(work: Work, seconds: float) -> float:
    """How often work is done in a second, DEPTH at a time."""
    began_s = time.perf_counter()
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began_s < seconds:
            await work()
            done += 1

    await asyncio.gather(*(caller() for _ in range(DEPTH)))
    return done / (time.perf_counter() - began_s)


async def _writes_of(client: redis.asyncio.Redis, work: Work) -> tuple[float, float]:
    """Writing commands, and bytes of the append-only file, that work needs once it is warm."""
    for _ in range(100):
        await work()
    before = await _written(client)
    for _ in range(COUNTED):
        await work()
    after = await _written(client)
    return (after[0] - before[0]) / COUNTED, (after[1] - before[1]) / COUNTED


async def _written(client: redis.asyncio.Redis) -> tuple[int, int]:
    info: dict[str, Any] = await client.info("everything")
    calls = sum(int(info.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in WRITES)
    return calls, int(info["aof_current_size"])
