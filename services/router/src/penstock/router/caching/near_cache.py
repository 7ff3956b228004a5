"""A copy of the latest exact hits in this process, so that a burst of one request costs no hop.

An entry that the cache has removed may be served from here for up to `LIFE_S` longer. The key holds
all that the cache's own key holds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.router.stages import Hit

LIFE_S = 1.0
CAPACITY_BYTES = 32 << 20
ENTRY_OVERHEAD_BYTES = 256


class RequestKey(NamedTuple):
    """All that an answer may depend on."""

    organisation: str
    scope: str
    """Tenant and namespace."""
    model: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NearCacheEntry:
    """An answer with what receipts say of it: whoever is given these copies them at once."""

    result: inference_pb2.TaskResult
    cache: common_pb2.CacheReceipt
    """Its age is written anew for each hit."""
    savings: tuple[common_pb2.Saving]
    born_s: float
    until_s: float
    size_bytes: int


class NearCache:
    """Bounded by bytes, least recently used first out. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._entries: OrderedDict[RequestKey, NearCacheEntry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: RequestKey, max_age_ms: int, now: float) -> Hit | None:
        """A hit that is young enough; `max_age_ms` 0 is any age."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.until_s:
            return None
        age_ms = round((now - entry.born_s) * 1e3)
        if max_age_ms and age_ms > max_age_ms:
            return None
        self._entries.move_to_end(key)
        entry.cache.age_ms = age_ms
        return Hit(entry.result, entry.cache, entry.savings)

    def put(
        self,
        key: RequestKey,
        result: inference_pb2.TaskResult,
        saving: common_pb2.Saving,
        age_s: float,
        now: float,
    ) -> None:
        """Keep an answer; `saving` is what each hit saves, `age_s` how old the answer is
        already.
        """
        size = result.ByteSize() + ENTRY_OVERHEAD_BYTES
        old = self._entries.pop(key, None)
        self._bytes += size - (old.size_bytes if old else 0)
        cache = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule="exact: copy"
        )
        self._entries[key] = NearCacheEntry(
            result, cache, (saving,), now - age_s, now + LIFE_S, size
        )
        while self._bytes > CAPACITY_BYTES:
            _, evicted = self._entries.popitem(last=False)
            self._bytes -= evicted.size_bytes

    def forget(self, organisation: str) -> None:
        """Drop everything of an organisation."""
        for key in [key for key in self._entries if key.organisation == organisation]:
            self._bytes -= self._entries.pop(key).size_bytes
