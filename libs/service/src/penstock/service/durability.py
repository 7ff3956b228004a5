"""When a write is on a store's disk, and what a store's configuration may lose.

A store answers a write when it has executed it. Whether a crash can still undo it depends on
`appendfsync`:

- `always`: the write was synced before the answer; a slow disk delays every answer.
- `everysec`: it is synced within a second or two. `WAITAOF` (Valkey, Redis 7.2 or newer) waits for
  that, so decisions do not wait for the disk, and what has to be durable does.
- `no`, or no append-only file: nobody knows.

`Fsyncs` is for writes that have to be durable before somebody is told. The append-only file is one
sequence, so one small write of its own, once synced, shows that everything executed before it is
synced too: all who wait share that write. A server begins a sync, and says that one has ended, when
it has something else to do or its timer comes by, so it is given something to do meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import redis.asyncio
from penstock.service.purity import pure
from penstock.service.store_cluster import as_cluster, sync_servers
from penstock.service.work_stream import stop
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError, ResponseError

WAITAOF_SINCE = (7, 2)
MARK = "penstock:synced"
"""The key that the write sets whose sync is waited for."""
SYNC_TIMEOUT_MS = 1_800
"""Longest wait for one sync; `everysec` needs one second, or two on a busy disk."""
REPLICA_TIMEOUT_MS = 400
"""The part of it in which replicas must have received the write."""
NUDGE_S = 0.1
"""Between two commands to a server that somebody waits for."""
DURABLE_CLIENT_TIMEOUT_S = 2.0
"""Timeout of a client that waits for syncs; above SYNC_TIMEOUT_MS."""

Confirmation = Literal["reply", "waitaof", "none"]
"""What shows that a write is on the disk: its own reply, WAITAOF, or nothing."""


class NotSynced(TimeoutError):
    """The store did not say in time that its writes are on its disk."""


@dataclass(frozen=True)
class StoreFacts:
    """What a store says of itself; `appendfsync` is empty where it may not be asked."""

    version: tuple[int, int]
    has_append_only_file: bool
    appendfsync: str
    max_memory_bytes: int
    eviction: str


async def store_facts(client: redis.asyncio.Redis) -> StoreFacts:
    """Ask a store; raises redis' own errors."""
    info = cast(Mapping[str, Any], await client.info())
    version = str(info.get("valkey_version") or info.get("redis_version", "0.0"))
    appendfsync = ""
    with contextlib.suppress(ResponseError):  # hosted stores refuse CONFIG
        appendfsync = str((await client.config_get("appendfsync")).get("appendfsync", ""))
    major, minor = (int(part) for part in version.split(".")[:2])
    return StoreFacts(
        (major, minor),
        bool(info.get("aof_enabled")),
        appendfsync,
        int(info.get("maxmemory", 0)),
        str(info.get("maxmemory_policy", "noeviction")),
    )


@pure
def confirmation_of(facts: StoreFacts) -> Confirmation:
    """What shows that a write is on the store's disk."""
    if not facts.has_append_only_file:
        return "none"
    if facts.appendfsync == "always":
        return "reply"
    return "waitaof" if facts.version >= WAITAOF_SINCE else "none"


@pure
def ledger_warnings(facts: StoreFacts, ledger_url: str, cache_url: str) -> Iterator[str]:
    """What is wrong with a store as the store of the ledger."""
    if cache_url and _server(ledger_url) == _server(cache_url):
        yield (
            "PENSTOCK_LEDGER_URL and PENSTOCK_CACHE_URL name one server: answers that fill it stop "
            "the ledger; run two"
        )
    if facts.max_memory_bytes and facts.eviction != "noeviction":
        yield (
            f"maxmemory-policy {facts.eviction}: the store may evict budgets and jobs; set "
            "noeviction"
        )
    if not facts.has_append_only_file:
        yield "appendonly no: a restart of the store forgets budgets, keys and jobs; set it to yes"
    elif confirmation_of(facts) == "none":
        yield (
            f"appendfsync {facts.appendfsync or 'is not known'}, and no WAITAOF before 7.2: a "
            "crash of the store may undo what was settled in its last seconds; set it to always "
            "or use a newer store"
        )


class Fsyncs:
    """Waits until what a store has executed is on its disk. Owner must `close` it.

    Args:
        client: with a timeout above SYNC_TIMEOUT_MS.
        replicas: which must have received a write as well, so that a failover does not lose it; by
            default one with Sentinel, which exists to replace the server, else none. A write is
            then lost only where the server and that replica crash within the same seconds.
    """

    def __init__(self, client: redis.asyncio.Redis, replicas: int | None = None) -> None:
        self._client = client
        by_sentinel = isinstance(getattr(client, "connection_pool", None), SentinelConnectionPool)
        self._replicas = int(by_sentinel) if replicas is None else replicas
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self.confirmation: Confirmation = "none"
        """What `learn` has found; until then nothing is waited for."""

    async def learn(self) -> StoreFacts:
        """Ask the store how it confirms writes; raises redis' own errors."""
        facts = await store_facts(self._client)
        self.confirmation = confirmation_of(facts)
        if self._replicas and self.confirmation == "reply":
            self.confirmation = "waitaof"  # the reply says nothing of replicas
        return facts

    async def wait(self) -> None:
        """Return when everything that was executed before is synced, or at once where only the
        reply tells or nothing does.

        Raises:
            NotSynced, RedisError, OSError, TimeoutError: the store has not said so.
        """
        if self.confirmation != "waitaof":
            return
        if self._next is None:
            self._next = asyncio.create_task(self._sync_after(self._current), name="wait for fsync")
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Stop waiting."""
        await stop([task for task in (self._next, self._current) if task is not None])

    async def _sync_after(self, before: asyncio.Task[None] | None) -> None:
        """Whoever waits for this task wrote before its mark is sent."""
        if before is not None:
            await asyncio.wait([before])
        self._current, self._next = self._next, None
        cluster = as_cluster(self._client)
        if cluster is not None:
            for reply in await sync_servers(cluster, MARK, SYNC_TIMEOUT_MS):
                check_synced(reply)
            return
        pipe = self._client.pipeline(transaction=False)
        pipe.set(MARK, 1)
        if self._replicas:
            pipe.execute_command("WAIT", self._replicas, REPLICA_TIMEOUT_MS)
        left_ms = SYNC_TIMEOUT_MS - (REPLICA_TIMEOUT_MS if self._replicas else 0)
        pipe.execute_command("WAITAOF", 1, 0, left_ms)
        nudging = asyncio.create_task(self._nudge(), name="nudge the store")
        try:
            _, *received, synced = await pipe.execute()
        finally:
            await stop([nudging])
        check_synced(synced)
        if received and int(received[0]) < self._replicas:
            raise NotSynced(f"fewer than {self._replicas} replicas have the write")

    async def _nudge(self) -> None:
        """Have the server look at its file again and again."""
        while True:
            await asyncio.sleep(NUDGE_S)
            with contextlib.suppress(TimeoutError, RedisError, OSError):
                await self._client.ping()


def check_synced(reply: Sequence[Any]) -> None:
    """Raise NotSynced where a reply of WAITAOF says that the server's own disk lacks the write."""
    if int(reply[0]) < 1:
        raise NotSynced("the store's disk did not have the write in time")


def _server(url: str) -> tuple[str, str]:
    """Which server a URL names: host and port, or the path of its socket."""
    parts = urlsplit(url)
    return (parts.netloc.rpartition("@")[2], parts.path if parts.scheme == "unix" else "")
