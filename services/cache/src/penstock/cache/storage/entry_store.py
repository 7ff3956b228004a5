"""The workshop: entries in Redis, compressed above a size, bounded in bytes, and found by what
invalidation names.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import redis.asyncio
import zstandard
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.settings import CacheSection
from penstock.cache.storage.s3_fifo import S3Fifo
from penstock.rpc.errors import unavailable
from penstock.tasks.answer_keys import KEY_BYTES, keyed_hash
from redis.exceptions import RedisError

PREFIX = "penstock:cache:"
PLAIN, PACKED = b"0", b"1"
KEPT = PREFIX + "kept"
GROUP = "g:"
"""Sorted sets of keys by the moment they run out."""
JOIN = """
redis.replicate_commands()
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ms)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ms + ARGV[1], ARGV[i]) end
redis.call('PEXPIREAT', KEYS[1], redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
"""
"""Puts keys (the second argument on) into a group for so many milliseconds; those that have run out
leave, the group with its last.
"""
KEPT_TOLD = 100_000
"""Stores that the stream of new keys holds, about: whoever lags behind more does not hear of some.
"""
STORE_ERRORS = (RedisError, OSError, TimeoutError)
"""What a store that does not answer raises."""


@contextmanager
def reachable() -> Iterator[None]:
    """A store that does not answer is UNAVAILABLE for its caller."""
    try:
        yield
    except STORE_ERRORS as error:
        raise unavailable(f"the store does not answer ({type(error).__name__})", 1.0) from None


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
    fresh_until_ms: int = 0
    """From then on it is stale, and kept only for those who may have a stale answer; 0 where it is
    never stale.
    """

    def stale(self, now_ms: int) -> bool:
        """True past its time."""
        return 0 < self.fresh_until_ms <= now_ms


class EntryStore:
    """The entries of every tenant in one Redis.

    Owns the bounds; the client belongs to whoever made it.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        secret: bytes,
        section: CacheSection,
        rng: Random | None = None,
    ) -> None:
        self._client = client
        self._secret = secret
        self._section = section
        self._rng = rng or Random()
        self._replica = secrets.token_bytes(8)
        self._all = S3Fifo(section.total_bytes)
        self._tenants: dict[str, S3Fifo] = {}
        self._pack = zstandard.ZstdCompressor(level=3)
        self._unpack = zstandard.ZstdDecompressor()

    @property
    def size_bytes(self) -> int:
        return self._all.bytes

    def __len__(self) -> int:
        return len(self._all)

    def reload(self, section: CacheSection) -> None:
        """Put new bounds in force; what is too much then leaves with the next entry."""
        self._section = section
        self._all.most_bytes = section.total_bytes
        for bound in self._tenants.values():
            bound.most_bytes = section.tenant_bytes

    def held_by(self, tenants: Iterable[str]) -> tuple[int, int]:
        """Bytes and entries of these tenants."""
        bounds = [
            bound
            for tenant in tenants
            if (bound := self._tenants.get(self.folder(tenant))) is not None
        ]
        return sum(bound.bytes for bound in bounds), sum(len(bound) for bound in bounds)

    def folder(self, tenant: str) -> str:
        """What a tenant's keys begin with; the tenant's name does not show."""
        return f"{PREFIX}{keyed_hash(self._secret, b'tenant', tenant.encode())}:"

    async def load(self) -> None:
        """Take the entries that are there into the bounds; after a restart."""
        async for raw in self._client.scan_iter(match=PREFIX + "*:e:*", count=1000):
            name = raw.decode()
            await self._drop(self._take(name, int(await self._client.strlen(name)), 0))

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
        folder, section = self.folder(tenant), self._section
        fresh_ms = max(1, round(ttl_ms * self._rng.uniform(1 - section.ttl_jitter, 1)))
        stale_ms = round(section.stale_while_revalidate_s * 1000)
        raws: dict[str, tuple[Entry, bytes]] = {}
        for entry in entries:
            timed = replace(entry, fresh_until_ms=entry.born_ms + fresh_ms) if stale_ms else entry
            raws[f"{folder}e:{entry.key}"] = timed, self._write(timed)
        gone: set[str] = set()
        for name, (entry, raw) in raws.items():
            gone.update(self._take(name, len(raw), entry.paid_microusd))
        kept = {name: one for name, one in raws.items() if name not in gone}
        if kept:
            await self._set(folder, kept, fresh_ms + stale_ms)
        await self._drop(sorted(gone))
        return len(kept)

    async def _set(
        self, folder: str, kept: Mapping[str, tuple[Entry, bytes]], life_ms: int
    ) -> None:
        pipe = self._client.pipeline(transaction=False)
        for name, (_, raw) in kept.items():
            pipe.set(name, raw, px=life_ms)
        for group, keys in _groups([entry for entry, _ in kept.values()]).items():
            pipe.eval(JOIN, 1, folder + group, life_ms, *keys)
        told: dict[Any, Any] = {
            "k": b"".join(bytes.fromhex(entry.key) for entry, _ in kept.values()),
            "b": json.dumps(
                [(name, len(raw), entry.paid_microusd) for name, (entry, raw) in kept.items()]
            ),
            "r": self._replica,
        }
        pipe.xadd(KEPT, told, maxlen=KEPT_TOLD, approximate=True)
        await pipe.execute()

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
        """Keys that were kept after a place in the stream, and the place of the last; waits for the
        first.
        """
        rows = await self._told(at, wait_ms)
        keys = [
            fields[b"k"][i : i + KEY_BYTES]
            for _, fields in rows
            for i in range(0, len(fields[b"k"]), KEY_BYTES)
        ]
        return (rows[-1][0].decode() if rows else at), keys

    async def members(self, tenant: str, group: str) -> set[str]:
        """Keys of a tag (`t:…`), a scope (`s:…`), a model (`m:…`) or surroundings (`c:…`)."""
        found: Sequence[Any] = await self._client.zrange(
            f"{self.folder(tenant)}{GROUP}{group}", 0, -1
        )
        return {raw.decode() for raw in found}

    async def remove(self, tenant: str, keys: Iterable[str]) -> int:
        """Remove entries; returns how many were there."""
        return await self._drop([f"{self.folder(tenant)}e:{key}" for key in keys])

    async def hear(self, at: str, wait_ms: int) -> str:
        """Take into the bounds what other replicas have kept after a place in the stream of new
        keys; the place of the last.
        """
        rows = await self._told(at, wait_ms)
        for _, fields in rows:
            if fields.get(b"r") != self._replica:
                gone = [
                    one
                    for name, size, paid in json.loads(fields.get(b"b", b"[]"))
                    for one in self._take(name, size, paid)
                ]
                await self._drop(gone)
        return rows[-1][0].decode() if rows else at

    async def _told(self, at: str, wait_ms: int) -> Sequence[Any]:
        found: Any = await self._client.xread({KEPT: at}, count=100, block=wait_ms)
        return found[0][1] if found else ()

    def _take(self, name: str, size: int, paid_microusd: int) -> list[str]:
        """Count an entry for its tenant and for all; the names that leave for it."""
        folder = name[: name.index(":e:") + 1]
        return self._bound(folder).add(name, size, paid_microusd) + self._all.add(
            name, size, paid_microusd
        )

    def _bound(self, folder: str) -> S3Fifo:
        return self._tenants.setdefault(folder, S3Fifo(self._section.tenant_bytes))

    def _forget(self, name: str) -> None:
        self._all.remove(name)
        self._bound(name[: name.index(":e:") + 1]).remove(name)

    async def _drop(self, names: Sequence[str]) -> int:
        """Remove entries, and their keys from the groups that they are found in; returns how many
        were there.
        """
        for name in names:
            self._forget(name)
        if not names:
            return 0
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.getdel(name)
        found: list[Any] = await pipe.execute()
        pipe = self._client.pipeline(transaction=False)
        for name, raw in zip(names, found, strict=True):
            folder, _, key = name.partition(":e:")
            for group in _groups([self._read(key, raw)]) if raw is not None else ():
                pipe.zrem(f"{folder}:{group}", key)
        await pipe.execute()
        return sum(raw is not None for raw in found)

    def _write(self, entry: Entry) -> bytes:
        head = json.dumps(
            [
                entry.paid_microusd,
                entry.born_ms,
                entry.model,
                entry.scope_key,
                entry.tags,
                entry.fresh_until_ms,
            ]
        ).encode()
        body = len(head).to_bytes(4, "big") + head + entry.result.SerializeToString()
        return (
            PACKED + self._pack.compress(body)
            if len(body) > self._section.compress_above_bytes
            else PLAIN + body
        )

    def _read(self, key: str, raw: bytes) -> Entry:
        body = self._unpack.decompress(raw[1:]) if raw[:1] == PACKED else raw[1:]
        length = int.from_bytes(body[:4], "big")
        paid, born, model, scope_key, tags, *more = json.loads(body[4 : 4 + length])
        result = inference_pb2.TaskResult.FromString(body[4 + length :])
        return Entry(key, result, paid, born, model, scope_key, tuple(tags), *more)


def _groups(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Keys of entries by the sets that invalidation finds them in."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        names = [f"t:{tag}" for tag in entry.tags] + [f"m:{entry.model.partition('@')[0]}"]
        for name in [*names, f"s:{entry.scope_key}"] if entry.scope_key else names:
            groups.setdefault(GROUP + name, []).append(entry.key)
    return groups
