"""Stored answers in Redis: limited in bytes, and indexed by what an invalidation may name.

Names in the store, where P is a hash of the tenant: `penstock:cache:P:e:KEY` is an entry, and
`penstock:cache:P:g:GROUP` a sorted set of the keys of its entries by their time of expiry. Groups
are tags, models and semantic scopes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import redis.asyncio
from penstock.cache.settings import CacheSection
from penstock.cache.storage.entries import Entry, EntryCodec
from penstock.cache.storage.eviction import ByteLimits
from penstock.cache.storage.new_entries import NewEntries, NewEntry
from penstock.rpc.errors import unavailable
from penstock.service.store_cluster import by_slot, scan_page
from penstock.service.store_reads import StoreReads
from penstock.tasks.answer_keys import keyed_hash
from redis.exceptions import RedisError

PREFIX = "penstock:cache:"
ENTRY = "e:"
GROUP = "g:"
TAG_GROUP = "t:"
MODEL_GROUP = "m:"
SCOPE_GROUP = "s:"
PREFIXES_KEPT = 4_096
"""Tenants whose prefix is remembered."""
SCAN_BATCH = 1_000
ALL_ENTRIES = f"{PREFIX}*:{ENTRY}*"
SET_ALL = """
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1]) end
"""
"""Sets keys to the second argument on for ARGV[1] milliseconds: one reply for all of them, which
takes a client less than a command and a reply for each.
"""
ADD_TO_GROUP = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ms)
for i = 2, #ARGV, 500 do
  local members = {}
  for j = i, math.min(i + 499, #ARGV) do
    members[#members + 1] = ms + ARGV[1]
    members[#members + 1] = ARGV[j]
  end
  redis.call('ZADD', KEYS[1], unpack(members))
end
redis.call('PEXPIREAT', KEYS[1], redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
"""
"""Adds keys (the second argument on) to a group for ARGV[1] milliseconds. Expired keys are removed,
and the group expires with its last key.
"""
STORE_ERRORS = (RedisError, OSError, TimeoutError)
"""What calls raise when the store does not answer."""


@contextmanager
def unavailable_without_store() -> Iterator[None]:
    """Turn the errors of a store that does not answer into UNAVAILABLE for the caller."""
    try:
        yield
    except STORE_ERRORS as error:
        message = f"the store does not answer ({type(error).__name__}); retry"
        raise unavailable(message, retry_after_s=1.0) from None


class EntryStore:
    """The entries of all tenants in one Redis.

    Owns the limits in bytes and must be closed; the client belongs to whoever made it.
    """

    def __init__(
        self, client: redis.asyncio.Redis, secret: bytes, section: CacheSection, rng: Random
    ) -> None:
        self.new_entries = NewEntries(client)
        self._client = client
        self._prefix = functools.lru_cache(PREFIXES_KEPT)(self._made_prefix)
        self._reads = StoreReads(client)
        self._secret = secret
        self._section = section
        self._rng = rng
        self._limits = ByteLimits(section.tenant_bytes, section.total_bytes)
        self._codec = EntryCodec()

    async def close(self) -> None:
        """End the connection that reads entries."""
        await self._reads.close()

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return self._limits.size_bytes

    def __len__(self) -> int:
        """Number of all entries."""
        return len(self._limits)

    def size_of(self, tenants: Iterable[str]) -> tuple[int, int]:
        """Bytes and number of the entries of these tenants."""
        return self._limits.size_of(self._prefix(tenant) for tenant in tenants)

    def reload(self, section: CacheSection) -> None:
        """Put other limits in force; what exceeds them is evicted as entries are added."""
        self._section = section
        self._limits.resize(section.tenant_bytes, section.total_bytes)

    async def load_sizes(self) -> None:
        """Count the entries that are in the store towards the limits, a batch at a time; after a
        restart. What was counted meanwhile is not counted again.
        """
        cursor, is_first = 0, True
        while cursor or is_first:
            is_first = False
            cursor, raw_names = await scan_page(self._client, cursor, ALL_ENTRIES, SCAN_BATCH)
            names = [name for raw in raw_names if (name := raw.decode()) not in self._limits]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.strlen(name)
            sizes: list[int] = await pipe.execute()
            await self.count(
                [NewEntry(name, size, 0) for name, size in zip(names, sizes, strict=True)]
            )

    async def count(self, entries: Sequence[NewEntry]) -> None:
        """Count entries in the store towards the limits, and evict what exceeds them."""
        evicted = [
            name
            for one in entries
            for name in self._limits.add(
                _prefix_of(one.name), one.name, one.size_bytes, one.paid_microusd
            )
        ]
        await self._delete(evicted)

    async def get(self, tenant: str, key: str, now_ms: int, max_age_ms: int) -> Entry | None:
        """An entry, unless it is older than `max_age_ms`; 0 allows any age. This counts as use."""
        prefix = self._prefix(tenant)
        name = f"{prefix}{ENTRY}{key}"
        raw = await self._reads.get(name)
        if raw is None:
            self._limits.remove(prefix, name)
            return None
        entry = self._codec.decode(key, raw)
        if max_age_ms and now_ms - entry.created_ms > max_age_ms:
            return None
        self._limits.record_use(prefix, name)
        return entry

    async def put(self, tenant: str, entries: Sequence[Entry], ttl_ms: int) -> frozenset[str]:
        """Store entries for about `ttl_ms`, and evict others for them.

        Returns the keys of what was stored: an entry larger than a tenant's limit is not.
        """
        prefix = self._prefix(tenant)
        # Random lives keep entries that were stored together from expiring together.
        fresh_ms = max(1, round(ttl_ms * self._rng.uniform(1 - self._section.ttl_jitter, 1)))
        stale_ms = round(self._section.stale_while_revalidate_s * 1000)
        encoded: dict[str, tuple[Entry, bytes]] = {}
        evicted: set[str] = set()
        for entry in entries:
            fresh_until_ms = entry.created_ms + fresh_ms if stale_ms else 0
            raw = self._codec.encode(entry, fresh_until_ms, self._section.compress_above_bytes)
            encoded[f"{prefix}{ENTRY}{entry.key}"] = entry, raw
        for name, (entry, raw) in encoded.items():
            evicted.update(self._limits.add(prefix, name, len(raw), entry.paid_microusd))
        fitting = {name: one for name, one in encoded.items() if name not in evicted}
        if fitting:
            await self._write(prefix, fitting, fresh_ms + stale_ms)
        await self._delete(sorted(evicted))
        return frozenset(entry.key for entry, _ in fitting.values())

    async def remove(self, tenant: str, keys: Iterable[str]) -> int:
        """Remove entries; returns how many there were."""
        prefix = self._prefix(tenant)
        return await self._delete([f"{prefix}{ENTRY}{key}" for key in keys])

    async def keys_in_group(self, tenant: str, group: str) -> set[str]:
        """The keys of the entries in a group, such as TAG_GROUP and a tag."""
        name = f"{self._prefix(tenant)}{GROUP}{group}"
        found: Sequence[Any] = await self._client.zrange(name, 0, -1)
        return {raw.decode() for raw in found}

    async def scan_keys(self, cursor: int) -> tuple[int, list[bytes]]:
        """Some of all keys, and the cursor of the next; cursor 0 begins, and 0 ends."""
        next_cursor, names = await scan_page(self._client, cursor, ALL_ENTRIES, SCAN_BATCH)
        return next_cursor, [bytes.fromhex(name.rpartition(b":")[2].decode()) for name in names]

    def _made_prefix(self, tenant: str) -> str:
        """What a tenant's names begin with; it does not reveal the tenant."""
        return f"{PREFIX}{keyed_hash(self._secret, b'tenant', tenant.encode())}:"

    async def _write(
        self, prefix: str, entries: Mapping[str, tuple[Entry, bytes]], life_ms: int
    ) -> None:
        pipe = self._client.pipeline(transaction=False)
        for names in by_slot(self._client, entries):
            raws = [entries[name][1] for name in names]
            pipe.execute_command("EVAL", SET_ALL, len(names), *names, life_ms, *raws)
        stored = [entry for entry, _ in entries.values()]
        for group, keys in _groups(stored).items():
            pipe.execute_command("EVAL", ADD_TO_GROUP, 1, prefix + group, life_ms, *keys)
        self.new_entries.append(
            pipe,
            [entry.key for entry in stored],
            [
                NewEntry(name, len(raw), entry.paid_microusd)
                for name, (entry, raw) in entries.items()
            ],
        )
        await pipe.execute()

    async def _delete(self, names: Sequence[str]) -> int:
        """Delete entries, and their keys from their groups; returns how many there were."""
        if not names:
            return 0
        for name in names:
            self._limits.remove(_prefix_of(name), name)
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.getdel(name)
        found: list[Any] = await pipe.execute()
        pipe = self._client.pipeline(transaction=False)
        deleted = [(name, raw) for name, raw in zip(names, found, strict=True) if raw is not None]
        for name, raw in deleted:
            prefix = _prefix_of(name)
            key = name.removeprefix(prefix + ENTRY)
            for group in _groups([self._codec.decode(key, raw)]):
                pipe.zrem(prefix + group, key)
        await pipe.execute()
        return len(deleted)


def _prefix_of(name: str) -> str:
    """The tenant's prefix of an entry's name."""
    return name[: name.index(f":{ENTRY}") + 1]


def _groups(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The keys of entries by the groups that they are in."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        names = [TAG_GROUP + tag for tag in entry.tags]
        names.append(MODEL_GROUP + entry.model.partition("@")[0])
        if entry.scope_key:
            names.append(SCOPE_GROUP + entry.scope_key)
        for name in names:
            groups.setdefault(GROUP + name, []).append(entry.key)
    return groups
