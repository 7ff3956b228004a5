"""Cache services on a real Redis, with an embedder of words."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.semantic.learning_log import Lessons
from penstock.cache.semantic.semantic_cache import Embedder, SemanticTier
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.storage.entries import Entries
from penstock.cache.storage.replicas import Replicas
from penstock.rpc.call import Call, Principal
from penstock.service.clock import Clock, SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.chats import chat, chat_result, look_up_request

ANN = Call(Principal("acme", team="core", tags=("support",)))
WIDTH = 16
INTENTS = ("pay", "lost", "open", "limit", "rate", "help")


class Rig:
    """Cache services on one store; their embedder gives each first word its own direction."""

    def __init__(self, url: str) -> None:
        self.client = open_store(url)
        self.tiers: list[SemanticTier] = []
        self.replicas: list[Replicas] = []

    async def make(self, clock: Clock | None = None, **section: Any) -> CacheServicer:
        knobs, clock = CacheSection(**{"probes_per_s": 1e6, **section}), clock or SystemClock()
        entries = Entries(self.client, b"secret", knobs, Random(2))
        replicas = Replicas(entries)
        await replicas.start()
        self.replicas.append(replicas)
        embedder = Embedder("words@1", WIDTH, self.embed)
        tier = SemanticTier(
            Lessons(self.client, knobs.lessons_bytes), knobs, embedder, Random(1), clock
        )
        await tier.start()
        self.tiers.append(tier)
        return CacheServicer(CacheSettings(internal_token="secret"), knobs, entries, tier, clock)

    @staticmethod
    def embed(text: str) -> np.ndarray:
        """The same text always has the same vector."""
        rng = np.random.default_rng(zlib.crc32(text.split()[0].encode()))
        other = np.random.default_rng(len(text))
        vector = rng.normal(size=WIDTH) + 0.25 * other.normal(size=WIDTH)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    @staticmethod
    async def look(
        cache: CacheServicer, task: inference_pb2.Task, call: Call = ANN, **more: Any
    ) -> pb.LookUpResponse:
        return await cache.LookUp(look_up_request(task, **more), call)

    @staticmethod
    async def store(
        cache: CacheServicer,
        missed: pb.LookUpResponse,
        answer: inference_pb2.TaskResult,
        call: Call = ANN,
        **more: Any,
    ) -> pb.StoreResponse:
        request = pb.StoreRequest(token=missed.token, result=answer, paid_microusd=400, **more)
        return await cache.Store(request, call)

    async def keep(
        self,
        cache: CacheServicer,
        task: inference_pb2.Task,
        answer: inference_pb2.TaskResult,
        call: Call = ANN,
        **more: Any,
    ) -> pb.StoreResponse:
        missed = await self.look(cache, task, call, **more)
        assert missed.receipt.outcome == common_pb2.CACHE_OUTCOME_MISS
        return await self.store(cache, missed, answer, call)

    @staticmethod
    async def until(what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.005)

    async def warm(self, cache: CacheServicer, prompts: int = 420) -> list[str]:
        """Ask and teach until likeness is served, and right; the prompts that were."""
        rng, served, stored = Random(4), list[str](), 0
        tier = cache.likeness.tier
        assert tier is not None
        for _ in range(prompts):
            intent = rng.choice(INTENTS)
            text = (
                f"{intent} "
                f"{'please ' * rng.randint(0, 8)}{rng.choice(['now', 'my card', 'soon'])} "
                f"{'x' * rng.randint(1, 40)}"
            )
            found = await self.look(cache, chat(text))
            if found.receipt.outcome == common_pb2.CACHE_OUTCOME_SEMANTIC_HIT:
                served.append(text)
                assert json.loads(found.result.generate.message.content)["intent"] == intent
            elif found.receipt.outcome == common_pb2.CACHE_OUTCOME_MISS:
                await self.store(cache, found, chat_result(json.dumps({"intent": intent})))
                stored += 1
                if stored % 10 == 0:
                    expected = stored
                    await self.until(
                        lambda count=expected: (
                            sum(len(held.index) for held in tier.scopes()) == count
                        )
                    )
        return served


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with embedded_store(tmp_path / "redis", "cache") as url:
        made = Rig(url)
        yield made
        await asyncio.gather(*(one.close() for one in (*made.tiers, *made.replicas)))
        await made.client.aclose()
