"""One request under way here, for which identical ones wait instead of going themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2

COALESCED = common_pb2.CACHE_OUTCOME_COALESCED


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
        self._stale = False
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
    ) -> None:
        """The answer is there, or None: none will come."""
        self.result, self.cost_microusd = result, cost_microusd
        self.semantic, self._stale = semantic, stale
        self.over = True
        self._wake()

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
        async with asyncio.timeout(None if left_s > 1e9 else max(left_s, 0.0)):
            while not self.over:
                await self._changed.wait()

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
