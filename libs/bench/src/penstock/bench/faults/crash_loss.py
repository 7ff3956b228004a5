"""What a kill (SIGKILL) of the ledger's store takes with it: settlements are made, the store is
killed, started again, and asked for each settlement that was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from penstock.limiter.counters import SpendPath, counters_of, organisation_prefix
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import Reservation
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.errors import StoreLost
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.service.clock import SystemClock
from penstock.service.socket_paths import socket_folder
from penstock.service.store import (
    Appendfsync,
    EmbeddedStore,
    open_store,
    wait_ready,
)

SECTION = LimitsSection.model_validate(
    {
        "rules": [
            {"name": "b", "kind": "budget", "counts": "tokens", "limit": 10**12, "window": "hour"}
        ]
    }
)
CALLERS = 32
PATH = SpendPath("acme", model="m")


@dataclass(frozen=True)
class Loss:
    """Settlements that were answered, and those of them that the store had lost."""

    answered: int
    lost: int


async def measure(folder: Path, appendfsync: Appendfsync, *, waits: bool, seed: int) -> Loss:
    """One kill; with `waits` a settlement is answered when it is on the disk."""
    folder.mkdir(parents=True)
    with socket_folder() as sockets:
        server = EmbeddedStore(folder, sockets / "store.sock", appendfsync)
        answered = await _settle_until_killed(server, waits, Random(seed).uniform(1.2, 3.0))
        async with _served(server):
            return await loss_of(server.url, answered)


async def loss_of(url: str, answered: list[str]) -> Loss:
    """How many of the settlements the store at `url` has not."""
    client = open_store(url)
    prefix = organisation_prefix("acme") + "hold:"
    pipe = client.pipeline(transaction=False)
    for hold_id in answered:
        pipe.hget(prefix + hold_id, "state")
    states = await pipe.execute() if answered else []
    await client.aclose()
    return Loss(len(answered), sum(state != b"done" for state in states))


@contextlib.asynccontextmanager
async def _served(server: EmbeddedStore) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The server as a process."""
    process = subprocess.Popen(
        server.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        client = open_store(server.url)
        await wait_ready(client, process, 30.0)
        await client.aclose()
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def _settle_until_killed(server: EmbeddedStore, waits: bool, after_s: float) -> list[str]:
    """Reserve and settle until the store is killed; returns the holds whose settlement was
    answered.
    """
    async with _served(server) as process:
        return await settle_until_killed(server.url, waits, after_s, process.kill)


async def settle_until_killed(
    url: str,
    waits: bool,
    after_s: float,
    kill: Callable[[], object],
    stop_after: float = math.inf,
) -> list[str]:
    """Reserve and settle in a store until `kill` has ended it; returns the holds whose settlement
    was answered.

    Args:
        waits: whether an answer says that the settlement is durable.
        stop_after: so many answered settlements are enough, whether the store has ended or not.
    """
    answered: list[str] = []
    store = LedgerStore(open_store(url, retries=0), SystemClock(), StoreTimings(timeout_s=5.0))
    if waits:
        await store.connect()  # learns how the store confirms
    counters = counters_of(SECTION, PATH, SystemClock().time())

    async def caller(number: int) -> None:
        amounts = [1, 10, 0]
        turn = 0
        with contextlib.suppress(StoreLost):
            while len(answered) < stop_after:
                hold_id = f"{number}-{turn}"
                turn += 1
                reservation = Reservation(amounts, amounts, amounts, 60_000)
                await store.reserve("acme", hold_id, counters, reservation)
                await store.settle("acme", hold_id, amounts)
                answered.append(hold_id)

    callers = [asyncio.create_task(caller(number)) for number in range(CALLERS)]
    await asyncio.sleep(after_s)
    kill()
    await asyncio.gather(*callers)
    await store.close()
    return answered
