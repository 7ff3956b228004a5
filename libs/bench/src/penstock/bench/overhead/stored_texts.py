"""Hits in the cache service: texts whose answers it has, drawn by Zipf's law.

The router keeps a copy of an answer for a second, so that the most popular texts are answered by
it; the cache's own count of look-ups says how many reached the cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from penstock.api.cache.v1 import cache_pb2, cache_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.hop.benchmark import TEXT
from penstock.bench.overhead.stacks import MODEL, TENANT
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack

FILLING_CALLERS = 64
TURNS = 3
EXPONENT = 1.0
DRAWS = 1 << 17
SEED = 20_261_129
MAX_MISSED_SHARE = 0.01
EXACT_HIT = common_pb2.CACHE_OUTCOME_EXACT_HIT
COALESCED = common_pb2.CACHE_OUTCOME_COALESCED


class StoredTexts:
    """So many texts of one stack, and what became of those that were sent."""

    def __init__(self, stack: Stack, keys: int, text: str = TEXT) -> None:
        self._stack = stack
        self._keys = keys
        self._text = text
        self._options = router_pb2.CallOptions(model=MODEL)
        self._metadata = stack.metadata(TENANT)
        self._drawn = zipf_draws(keys, DRAWS)
        self._asked, self._looked_up = 0, 0

    async def fill(self) -> None:
        """Ask for each text, and again for those whose answers were not stored yet.

        Raises:
            RuntimeError: the cache does not keep them.
        """
        missing: Sequence[int] = range(self._keys)
        for _ in range(1 + TURNS):
            missing = await self._missed(missing)
            if not missing:
                break
        if len(missing) > MAX_MISSED_SHARE * self._keys:
            raise RuntimeError(f"the cache has no answer to {len(missing)} of {self._keys} texts")
        self._asked, self._looked_up = 0, await self._look_ups()

    async def cache_share(self) -> float:
        """The share of the calls since `fill` that reached the cache service."""
        return (await self._look_ups() - self._looked_up) / max(1, self._asked)

    async def _look_ups(self) -> int:
        metadata = ((TOKEN_KEY, self._stack.internal_token),)
        async with open_channel(self._stack.addresses["cache"]) as channel:
            stub = cache_pb2_grpc.CacheServiceStub(channel)
            stats = await stub.GetStats(cache_pb2.GetStatsRequest(), metadata=metadata)
        return int(stats.hits)

    async def send(self, number: int) -> object:
        """Ask for the text that was drawn for this number.

        Raises:
            RuntimeError: it was computed anew, so this is no hit.
        """
        self._asked += 1
        key = int(self._drawn[number % DRAWS])
        if not await self._is_hit(key):
            raise RuntimeError(f"text {key} is not in the cache any more")
        return key

    async def _missed(self, keys: Iterable[int]) -> list[int]:
        """Ask for each; those that were not hits."""
        waiting, missed = iter(keys), list[int]()
        callers = (self._ask(waiting, missed) for _ in range(FILLING_CALLERS))
        await asyncio.gather(*callers)
        return missed

    async def _ask(self, keys: Iterator[int], missed: list[int]) -> None:
        missed.extend([key for key in keys if not await self._is_hit(key)])

    async def _is_hit(self, key: int) -> bool:
        request = router_pb2.EmbedRequest(options=self._options, texts=[f"{self._text} key {key}"])
        answer = await self._stack.router.Embed(request, metadata=self._metadata)
        return answer.receipt.cache.outcome in (EXACT_HIT, COALESCED)


def zipf_draws(keys: int, draws: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Keys below `keys`, the k-th with a weight of 1 ÷ (k + 1); the same in every run."""
    weights = 1 / np.arange(1, keys + 1) ** EXPONENT
    return np.random.default_rng(SEED).choice(keys, size=draws, p=weights / weights.sum())
