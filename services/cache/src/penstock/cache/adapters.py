"""The workshop: entries in Redis, compressed above a size, bounded in bytes; and the stream of what scopes learnt, for all replicas."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis.asyncio
import zstandard
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.classes import Floats
from penstock.cache.config import CacheSection
from penstock.cache.eviction import Bounded
from penstock.core.reuse import KEY_BYTES, keyed

PREFIX = "penstock:cache:"
PLAIN, PACKED = b"0", b"1"
LESSONS = PREFIX + "lessons"
LESSONS_KEPT = 400_000
KEPT = PREFIX + "kept"
KEPT_TOLD = 100_000
"""Stores that the stream of new keys holds, about: whoever lags behind more does not hear of some."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer and what it cost."""

    key: str
    result: inference_pb2.TaskResult
    paid_microusd: int
    born_ms: int
    model: str
    scope_key: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one called request taught its scope. `key` is the entry that holds the answer; `kind` is `learn`, `remove` or `wrong`."""

    kind: str
    tenant: str
    scope_key: str
    key: str
    text: str = ""
    answer_class: str = ""
    vector: Floats | None = None
    verdict: dict[str, Any] | None = None


class Entries:
    """The entries of every tenant in one Redis. Owns the bounds; the client belongs to whoever made it."""

    def __init__(self, client: redis.asyncio.Redis, secret: bytes, section: CacheSection) -> None:
        self._client = client
        self._secret = secret
        self._section = section
        self._all = Bounded(section.total_bytes)
        self._tenants: dict[str, Bounded] = {}
        self._pack = zstandard.ZstdCompressor(level=3)
        self._unpack = zstandard.ZstdDecompressor()

    @property
    def size_bytes(self) -> int:
        return self._all.bytes

    def __len__(self) -> int:
        return len(self._all)

    def folder(self, tenant: str) -> str:
        """What a tenant's keys begin with; the tenant's name does not show."""
        return f"{PREFIX}{keyed(self._secret, b'tenant', tenant.encode())}:"

    async def load(self) -> None:
        """Take the entries that are there into the bounds; after a restart."""
        async for raw in self._client.scan_iter(match=PREFIX + "*:e:*", count=1000):
            name = raw.decode()
            folder = name[: name.index(":e:") + 1]
            size = int(await self._client.strlen(name))
            await self._drop(self._bound(folder).add(name, size, 0) + self._all.add(name, size, 0))

    async def get(self, tenant: str, key: str, now_ms: int, max_age_ms: int) -> Entry | None:
        """An entry that is not too old."""
        name = f"{self.folder(tenant)}e:{key}"
        raw: Any = await self._client.get(name)
        if raw is None:
            self._forget(name)
            return None
        entry = self._read(key, raw)
        if max_age_ms and now_ms - entry.born_ms > max_age_ms:
            return None
        self._bound(self.folder(tenant)).used(name)
        self._all.used(name)
        return entry

    async def put(self, tenant: str, entries: Sequence[Entry], ttl_ms: int) -> int:
        """Keep entries; returns how many were: one that is larger than a tenant may keep is not."""
        folder, jitter = self.folder(tenant), self._section.ttl_jitter
        life_ms = max(1, round(ttl_ms * random.uniform(1 - jitter, 1)))
        raws = {f"{folder}e:{entry.key}": (entry, self._write(entry)) for entry in entries}
        gone: set[str] = set()
        for name, (entry, raw) in raws.items():
            gone.update(self._bound(folder).add(name, len(raw), entry.paid_microusd))
            gone.update(self._all.add(name, len(raw), entry.paid_microusd))
        kept = {name: one for name, one in raws.items() if name not in gone}
        if kept:
            pipe = self._client.pipeline(transaction=False)
            for name, (_, raw) in kept.items():
                pipe.set(name, raw, px=life_ms)
            for group, keys in _groups([entry for entry, _ in kept.values()]).items():
                pipe.sadd(folder + group, *keys)
                pipe.pexpire(folder + group, life_ms)
            told: dict[Any, Any] = {"k": b"".join(bytes.fromhex(entry.key) for entry, _ in kept.values())}
            pipe.xadd(KEPT, told, maxlen=KEPT_TOLD, approximate=True)
            await pipe.execute()
        await self._drop(sorted(gone))
        return len(kept)

    async def newest_kept(self) -> str:
        """Where the stream of new keys ends now."""
        found: Any = await self._client.xrevrange(KEPT, count=1)
        return str(found[0][0].decode()) if found else "0-0"

    async def scan(self, cursor: int) -> tuple[int, list[bytes]]:
        """Some of all keys, and where to go on; 0 begins and ends."""
        found: Any = await self._client.scan(cursor, match=PREFIX + "*:e:*", count=1000)
        after, names = found
        return int(after), [bytes.fromhex(name.rpartition(b":")[2].decode()) for name in names]

    async def kept_after(self, at: str, wait_ms: int) -> tuple[str, list[bytes]]:
        """Keys that were kept after a place in the stream, and the place of the last; waits for the first."""
        found: Any = await self._client.xread({KEPT: at}, count=100, block=wait_ms)
        rows: Sequence[Any] = found[0][1] if found else ()
        keys = [fields[b"k"][i : i + KEY_BYTES] for _, fields in rows for i in range(0, len(fields[b"k"]), KEY_BYTES)]
        return (rows[-1][0].decode() if rows else at), keys

    async def members(self, tenant: str, group: str) -> set[str]:
        """Keys of a tag (`t:…`), a scope (`s:…`) or a model (`m:…`)."""
        found: set[Any] = await self._client.smembers(self.folder(tenant) + group)
        return {raw.decode() for raw in found}

    async def remove(self, tenant: str, keys: Iterable[str]) -> int:
        """Remove entries; returns how many were there."""
        names = [f"{self.folder(tenant)}e:{key}" for key in keys]
        for name in names:
            self._forget(name)
        return int(await self._client.unlink(*names)) if names else 0

    async def teach(self, lesson: Lesson) -> None:
        """Append to what every replica learns."""
        fields: dict[Any, Any] = {
            "k": lesson.kind, "t": lesson.tenant, "s": lesson.scope_key, "e": lesson.key, "x": lesson.text, "a": lesson.answer_class,
            "v": lesson.vector.tobytes() if lesson.vector is not None else b"", "d": json.dumps(lesson.verdict),
        }  # fmt: skip
        await self._client.xadd(LESSONS, fields, maxlen=LESSONS_KEPT, approximate=True)

    async def lessons(self, after: str, wait_ms: int | None) -> list[tuple[str, Lesson]]:
        """The lessons after an id, oldest first; waits where there is none and `wait_ms` is given."""
        found: Any = await self._client.xread({LESSONS: after}, count=1000, block=wait_ms)
        rows: Sequence[Any] = found[0][1] if found else ()
        return [(at.decode(), _lesson(fields)) for at, fields in rows]

    async def has_lesson(self, at: str) -> bool:
        """True while the lesson of this id is in the stream: what follows it then follows without a gap."""
        return bool(await self._client.xrange(LESSONS, at, at, count=1))

    def _bound(self, folder: str) -> Bounded:
        return self._tenants.setdefault(folder, Bounded(self._section.tenant_bytes))

    def _forget(self, name: str) -> None:
        self._all.remove(name)
        self._bound(name[: name.index(":e:") + 1]).remove(name)

    async def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            self._forget(name)
        if names:
            await self._client.unlink(*names)

    def _write(self, entry: Entry) -> bytes:
        head = json.dumps([entry.paid_microusd, entry.born_ms, entry.model, entry.scope_key, entry.tags]).encode()
        body = len(head).to_bytes(4, "big") + head + entry.result.SerializeToString()
        return PACKED + self._pack.compress(body) if len(body) > self._section.compress_above_bytes else PLAIN + body

    def _read(self, key: str, raw: bytes) -> Entry:
        body = self._unpack.decompress(raw[1:]) if raw[:1] == PACKED else raw[1:]
        length = int.from_bytes(body[:4], "big")
        paid, born, model, scope_key, tags = json.loads(body[4 : 4 + length])
        result = inference_pb2.TaskResult.FromString(body[4 + length :])
        return Entry(key, result, paid, born, model, scope_key, tuple(tags))


def _groups(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Keys of entries by the sets that invalidation finds them in."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        names = [f"t:{tag}" for tag in entry.tags] + [f"m:{entry.model.partition('@')[0]}"]
        for name in [*names, f"s:{entry.scope_key}"] if entry.scope_key else names:
            groups.setdefault(name, []).append(entry.key)
    return groups


def _lesson(fields: dict[bytes, bytes]) -> Lesson:
    def text(name: bytes) -> str:
        return fields[name].decode()

    vector = np.frombuffer(fields[b"v"], np.float32) if fields[b"v"] else None
    return Lesson(
        text(b"k"), text(b"t"), text(b"s"), text(b"e"), text(b"x"), text(b"a"), vector, json.loads(fields[b"d"])
    )
