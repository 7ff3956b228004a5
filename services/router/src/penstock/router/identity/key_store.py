"""API keys in the store, and who has changed them.

Under one hash tag, so that a script may touch all of them in a cluster:

- `penstock:{keys}:records`: a hash of records by key id;
- `penstock:{keys}:version`: counts the changes;
- `penstock:{keys}:secret`: under which keys are hashed, where the settings name no secret;
- `penstock:{keys}:audit`: a stream of changes, of which the latest MAX_CHANGES are kept.

Each change writes its record, its audit entry and the version in one transaction, which repeats
where another operator changed the same record meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, cast

import redis.asyncio
from penstock.api.router.v1 import keys_pb2 as pb
from penstock.router.identity.key_records import KeyRecord, is_ended
from penstock.rpc.errors import exhausted, not_found
from penstock.rpc.reasons import Reason
from redis.exceptions import WatchError

PREFIX = "penstock:{keys}:"
RECORDS, VERSION, SECRET, AUDIT = (
    f"{PREFIX}{name}" for name in ("records", "version", "secret", "audit")
)
MAX_KEYS = 10_000
MAX_CHANGES = 100_000
HASH_BYTES = 32
BEFORE_ALL = "0-0"
"""The id before the first entry of a stream."""
TRIES = 16

Change = Callable[[KeyRecord | None], KeyRecord]
"""Makes the record that is kept of the one that was; raises Fault where it cannot be made."""


class KeyStore:
    """Keys in the store; raises redis' own errors."""

    def __init__(self, store: redis.asyncio.Redis, max_keys: int = MAX_KEYS) -> None:
        self._store = store
        self._max_keys = max_keys

    async def secret(self, configured: str) -> bytes:
        """Under which keys are hashed: as configured, or the same for all who share the store."""
        if configured:
            return configured.encode()
        await self._store.set(SECRET, secrets.token_bytes(32), nx=True)
        return cast(bytes, await self._store.get(SECRET))

    async def version(self) -> int:
        """Another number after each change."""
        return int(await self._store.get(VERSION) or 0)

    async def latest_change_id(self) -> str:
        """Where the audit log ends now."""
        rows: list[Any] = await self._store.xrevrange(AUDIT, count=1) or []
        return str(rows[0][0].decode()) if rows else BEFORE_ALL

    async def wait_for_change(self, change_id: str, wait_ms: int) -> str:
        """Wait for changes after one, for so long; the latest of them, or the one given."""
        found: Any = await self._store.xread({AUDIT: change_id}, block=wait_ms)
        return str(found[0][1][-1][0].decode()) if found else change_id

    async def read(self) -> tuple[int, Mapping[str, KeyRecord]]:
        """The version, and all keys as they are at it or later."""
        version = await self.version()
        rows = cast(dict[bytes, bytes], await self._store.hgetall(RECORDS))
        return version, {name.decode(): _unpacked(row) for name, row in rows.items()}

    async def change(self, key_id: str, change: Change, entry: pb.KeyChange) -> KeyRecord:
        """Change one key and record who did.

        Raises:
            Fault: what `change` raises; RESOURCE_EXHAUSTED for a key too many.
        """
        for _ in range(TRIES):
            async with self._store.pipeline(transaction=True) as pipe:
                await pipe.watch(RECORDS)
                row = cast(bytes | None, await pipe.hget(RECORDS, key_id))
                if row is None and int(await pipe.hlen(RECORDS)) >= self._max_keys:
                    raise exhausted(f"there are {self._max_keys} keys in force; revoke some")
                record = change(_unpacked(row) if row else None)
                entry.organisation = record.key.scope.organisation
                pipe.multi()
                pipe.hset(RECORDS, key_id, _packed(record))
                pipe.incr(VERSION)
                fields: dict[Any, Any] = {"change": entry.SerializeToString()}
                pipe.xadd(AUDIT, fields, maxlen=MAX_CHANGES, approximate=True)
                try:
                    await pipe.execute()
                except WatchError:
                    continue
                return record
        raise exhausted(
            "other operators change keys at the same time; try again",
            reason=Reason.ABORTED,
            retry_after_s=0.1,
        )

    async def make_room(self, now_unix_ms: int) -> None:
        """Forget the keys that have ended where there are as many as there may be. An unknown key
        is refused as an ended one is, and the audit log says what became of it.
        """
        if int(await self._store.hlen(RECORDS)) < self._max_keys:
            return
        _, records = await self.read()
        ended = [name for name, record in records.items() if is_ended(record.key, now_unix_ms)]
        if ended:
            await self._store.hdel(RECORDS, *ended)
            await self._store.incr(VERSION)

    async def latest_changes(self, count: int) -> list[pb.KeyChange]:
        """The latest changes, newest first."""
        rows: list[Any] = await self._store.xrevrange(AUDIT, count=count) or []
        changes = []
        for entry_id, fields in rows:
            change = pb.KeyChange.FromString(fields[b"change"])
            change.at_unix_ms = int(entry_id.split(b"-")[0])
            changes.append(change)
        return changes


def required(record: KeyRecord | None, key_id: str) -> KeyRecord:
    """The record; raises NOT_FOUND where there is none."""
    if record is None:
        raise not_found("id", f"there is no key {key_id!r}")
    return record


def _packed(record: KeyRecord) -> bytes:
    earlier = record.earlier_hash or bytes(HASH_BYTES)
    return record.current_hash + earlier + record.key.SerializeToString()


def _unpacked(row: bytes) -> KeyRecord:
    current, earlier = row[:HASH_BYTES], row[HASH_BYTES : 2 * HASH_BYTES]
    key = pb.Key.FromString(row[2 * HASH_BYTES :])
    return KeyRecord(key, current, earlier if any(earlier) else b"")
