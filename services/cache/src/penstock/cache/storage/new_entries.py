"""The stream of new entries in the store, which all replicas append to.

Callers follow it to know which keys have an answer (`key_listing`), and replicas to count each
other's entries towards the limits in bytes (`replica_follower`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis.asyncio
from penstock.service.interruption import unless
from penstock.tasks.answer_keys import KEY_BYTES
from redis.asyncio.client import Pipeline

STREAM = "penstock:cache:kept"
MAX_APPENDED = 100_000
"""Batches of entries that the stream holds, about; a reader that lags behind more misses some."""
READ_BATCH = 200
BEFORE_ALL = "0-0"


class NewEntry(NamedTuple):
    """An entry that was written: its name in the store, its size, and what its answer cost."""

    name: str
    size_bytes: int
    paid_microusd: int


class NewEntries:
    """One replica's end of the stream. The client belongs to whoever made it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._replica = secrets.token_bytes(8)
        self._is_leaving = asyncio.Event()

    def leave(self) -> None:
        """Let no caller wait for entries any more, since this replica stops."""
        self._is_leaving.set()

    def append(self, pipe: Pipeline, keys: Sequence[str], entries: Sequence[NewEntry]) -> None:
        """Append entries and their keys, in hexadecimal, as part of a pipeline."""
        fields: dict[Any, Any] = {
            "k": b"".join(bytes.fromhex(key) for key in keys),
            "b": json.dumps([(one.name, one.size_bytes, one.paid_microusd) for one in entries]),
            "r": self._replica,
        }
        pipe.xadd(STREAM, fields, maxlen=MAX_APPENDED, approximate=True)

    async def last_id(self) -> str:
        """The id of the latest batch in the stream."""
        found: Any = await self._client.xrevrange(STREAM, count=1)
        return str(found[0][0].decode()) if found else BEFORE_ALL

    async def keys_after(self, batch_id: str, wait_ms: int) -> tuple[str, list[bytes]]:
        """The id of the last batch read, and the keys written after a batch.

        Waits up to `wait_ms` for the first, unless this replica leaves.
        """
        nothing: tuple[str, list[dict[bytes, bytes]]] = (batch_id, [])
        last_id, rows = await unless(self._is_leaving, self._read(batch_id, wait_ms), nothing)
        keys = [
            fields[b"k"][start : start + KEY_BYTES]
            for fields in rows
            for start in range(0, len(fields[b"k"]), KEY_BYTES)
        ]
        return last_id, keys

    async def of_others_after(self, batch_id: str, wait_ms: int) -> tuple[str, list[NewEntry]]:
        """The id of the last batch read, and the entries that other replicas wrote after a batch.

        Waits up to `wait_ms` for the first batch.
        """
        last_id, rows = await self._read(batch_id, wait_ms)
        entries = [
            NewEntry(name, size_bytes, paid_microusd)
            for fields in rows
            if fields.get(b"r") != self._replica
            for name, size_bytes, paid_microusd in json.loads(fields.get(b"b", b"[]"))
        ]
        return last_id, entries

    async def _read(self, batch_id: str, wait_ms: int) -> tuple[str, list[dict[bytes, bytes]]]:
        found: Any = await self._client.xread({STREAM: batch_id}, count=READ_BATCH, block=wait_ms)
        if not found:
            return batch_id, []
        rows = found[0][1]
        return rows[-1][0].decode(), [fields for _, fields in rows]
