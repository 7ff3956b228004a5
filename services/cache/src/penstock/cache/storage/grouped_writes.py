"""Answers that are written together: one round trip to the store for all that come within a moment.

An answer that comes alone is written at once; those that follow it within PAUSE_S make the next
group. Its caller has the answer already, and whoever asks for it meanwhile gets it from the
look-ups that have just ended (`penstock.cache.lookups.pending`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from penstock.cache.storage.entries import Entry
from penstock.cache.storage.entry_store import EntryStore

PAUSE_S = 0.02
"""At least, between the beginnings of two groups."""


class Group(NamedTuple):
    """What entries have in common that one call writes."""

    tenant: str
    ttl_ms: int


class Write(NamedTuple):
    """An entry on its way to the store; `stored` says in the end whether it is there."""

    entry: Entry
    stored: asyncio.Future[bool]


class GroupedWrites:
    """Writes entries. It owns each until its future is done; callers wait for theirs, so what waits
    is bounded by the calls in flight.
    """

    def __init__(self, entries: EntryStore) -> None:
        self._entries = entries
        self._waiting: dict[Group, list[Write]] = {}
        self._unwritten: set[asyncio.Future[bool]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def put(self, tenant: str, entry: Entry, ttl_ms: int) -> bool:
        """Store an entry for about `ttl_ms`; False where it is larger than its tenant's limit.

        Raises:
            RedisError, OSError, TimeoutError: the store does not answer.
        """
        loop = asyncio.get_running_loop()
        write = Write(entry, loop.create_future())
        self._unwritten.add(write.stored)
        write.stored.add_done_callback(self._unwritten.discard)
        self._waiting.setdefault(Group(tenant, ttl_ms), []).append(write)
        if self._writer is None:
            self._writer = loop.create_task(self._write(), name="write answers")
        return await write.stored

    async def written(self) -> None:
        """Wait until what waits now is written, or has failed."""
        if self._unwritten:
            await asyncio.wait(self._unwritten)

    async def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            began_s = loop.time()
            waiting, self._waiting = self._waiting, {}
            for group, writes in waiting.items():
                await self._write_group(group, writes)
            await asyncio.sleep(max(0.0, began_s + PAUSE_S - loop.time()))
        self._writer = None

    async def _write_group(self, group: Group, writes: Sequence[Write]) -> None:
        entries = [write.entry for write in writes]
        try:
            keys = await self._entries.put(group.tenant, entries, group.ttl_ms)
        except Exception as error:
            for write in writes:
                _settle(write.stored, error)
        else:
            for write in writes:
                _settle(write.stored, write.entry.key in keys)


def _settle(stored: asyncio.Future[bool], outcome: bool | Exception) -> None:
    """Tell whoever still waits."""
    if stored.done():
        return
    if isinstance(outcome, Exception):
        stored.set_exception(outcome)
    else:
        stored.set_result(outcome)
