"""Answers in this process, for requests that are identical: of the last second, or under way.

`NearCache` is a copy of the latest exact hits, so that a burst of one request costs no hop. An
entry that the cache has removed may be served from it for up to `LIFE_S` longer. `SingleFlight` is
a request under way, for which identical ones wait instead of going themselves. Both go by a key
that holds all that the cache's own key holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.resolved import ResolvedRequest, digest_of
from penstock.router.stages import Hit
from penstock.rpc.call import Principal
from penstock.tasks.answer_keys import tenant_of

LIFE_S = 1.0
CAPACITY_BYTES = 32 << 20
ENTRY_OVERHEAD_BYTES = 256
COALESCED = common_pb2.CACHE_OUTCOME_COALESCED


class RequestKey(NamedTuple):
    """All that an answer may depend on."""

    organisation: str
    scope: str
    """Tenant and namespace."""
    model: str
    digest: bytes

    @classmethod
    def of(cls, principal: Principal, request: ResolvedRequest) -> RequestKey:
        """The key of a caller's request."""
        scope = f"{tenant_of(principal)}\x1e{request.options.cache.namespace}"
        digest = request.digest or digest_of(request.task)
        return cls(principal.organisation, scope, request.model, digest)


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
        saved: common_pb2.Saving,
        age_s: float,
        now: float,
    ) -> None:
        """Keep an answer; `saved` is what each hit saves, `age_s` how old the answer is already."""
        saving = common_pb2.Saving(
            technique="exact_cache", microusd=saved.microusd, saved_ms=saved.saved_ms
        )
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


class SingleFlight:
    """The pieces of an answer so far, and the answer in the end.

    Whoever began it ends it exactly once. Followers read from the beginning.
    """

    def __init__(self) -> None:
        self.result: inference_pb2.TaskResult | None = None
        self.cost_microusd = 0
        """What the answer cost or, reused itself, saved: what each follower saves."""
        self.over = False
        self.semantic: common_pb2.CacheReceipt | None = None
        """The decision, where the answer is that of a similar request."""
        self.model = ""
        """The model that gave the answer, where it is not the one asked for."""
        self.shareable = True
        """False where the answer turned out to be one that may not be kept: it is its caller's
        alone, and those who wait for it go on each for itself.
        """
        self._stale = False
        self._followers = 0
        self._chunks: list[inference_pb2.GenerateChunk] = []
        self._changed = asyncio.Event()

    def publish(self, chunk: inference_pb2.GenerateChunk) -> None:
        """Pass a piece on to the followers."""
        self._chunks.append(chunk)
        self._wake()

    def end(
        self,
        result: inference_pb2.TaskResult | None,
        cost_microusd: int,
        *,
        semantic: common_pb2.CacheReceipt | None = None,
        stale: bool = False,
        model: str = "",
        shareable: bool = True,
    ) -> None:
        """The answer is there, or None: none will come."""
        self.result, self.cost_microusd = result, cost_microusd
        self.model, self.shareable = model, shareable
        self.semantic, self._stale = semantic, stale
        self.over = True
        self._wake()

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Count a follower for as long as the context lasts."""
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._wake()

    async def abandoned(self) -> None:
        """Wait until nobody follows an answer that is not there yet: those who leave when it is
        there leave with it.
        """
        while self._followers or self.over:
            await self._changed.wait()

    async def chunks(self) -> AsyncGenerator[inference_pb2.GenerateChunk, None]:
        """The pieces from the beginning, each as it comes, until the end."""
        sent = 0
        while True:
            while sent < len(self._chunks):
                yield self._chunks[sent]
                sent += 1
            if self.over:
                return
            await self._changed.wait()

    async def finished(self, left_s: float) -> None:
        """Wait for the end.

        Raises:
            TimeoutError: it has not come within `left_s` seconds.
        """
        limit_s = None if left_s > 1e9 else max(left_s, 0.0)
        with self.followed():
            async with asyncio.timeout(limit_s):
                while not self.over:
                    await self._changed.wait()

    def hit(self, policy: router_pb2.CachePolicy) -> Hit | None:
        """The answer for a follower; None when the flight ended without one that this caller
        accepts, and somebody must go again.
        """
        if self.result is None:
            return None
        if self.semantic is not None and policy.HasField("max_error_rate"):
            return None  # who said how sure it must be has it decided for himself
        saving = common_pb2.Saving(technique="coalesced", microusd=self.cost_microusd)
        return Hit(self.result, self.receipt(), (saving,), self.model)

    def receipt(self) -> common_pb2.CacheReceipt:
        """What a follower's receipt says."""
        if self.semantic is not None:
            return common_pb2.CacheReceipt(
                outcome=COALESCED,
                rule="coalesced: semantic",
                similarity=self.semantic.similarity,
                confidence=self.semantic.confidence,
            )
        rule = "coalesced: stale" if self._stale else "coalesced"
        return common_pb2.CacheReceipt(outcome=COALESCED, rule=rule)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
