"""Caches on a real Redis, with an embedder that knows words only."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import redis.asyncio
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.cache.build import Cache, Models, assemble
from penstock.cache.semantic.embedder import Embedder
from penstock.cache.semantic.scopes import MAX_LOADED_SCOPES
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.rpc.call import Call, Principal
from penstock.service.clock import Clock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.chats import chat, chat_result, look_up_request
from penstock.testkit.eventually import eventually
from penstock.testkit.outside import outside_for_tests

ANN = Call(Principal("acme", team="core", tags=("support",)))
WIDTH = 16
INTENTS = ("pay", "lost", "open", "limit", "rate", "help")


def embed(text: str) -> np.ndarray:
    """A direction for each first word, and a little of one for each length of a text."""
    by_word = np.random.default_rng(zlib.crc32(text.split()[0].encode()))
    by_length = np.random.default_rng(len(text))
    vector = by_word.normal(size=WIDTH) + 0.25 * by_length.normal(size=WIDTH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Rig:
    """Makes caches on one store, and calls them."""

    embed = staticmethod(embed)

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client
        self._opened: list[Cache] = []

    async def make(
        self,
        clock: Clock | None = None,
        max_loaded_scopes: int = MAX_LOADED_SCOPES,
        **section: Any,
    ) -> Cache:
        """An open cache; `section` are values of the section `cache`."""
        embedder = Embedder("words@1", WIDTH, embed)
        models = Models(embedder, max_loaded_scopes=max_loaded_scopes)
        return await self.open(models, clock, **section)

    async def open(self, models: Models, clock: Clock | None = None, **section: Any) -> Cache:
        """An open cache with these models."""
        cache = self.assemble(self.client, models, clock, **section)
        await cache.open()
        self._opened.append(cache)
        await eventually(lambda: cache.is_caught_up)
        return cache

    @staticmethod
    def assemble(
        client: redis.asyncio.Redis, models: Models, clock: Clock | None = None, **section: Any
    ) -> Cache:
        """A cache that is not open."""
        settings = CacheSettings(secret="secret")
        values = CacheSection(**{"probes_per_s": 1e6, **section})
        return assemble(settings, values, client, outside_for_tests(settings, clock=clock), models)

    async def close(self) -> None:
        await asyncio.gather(*(cache.close() for cache in self._opened))

    @staticmethod
    async def look_up(
        cache: Cache, task: inference_pb2.Task, call: Call = ANN, **more: Any
    ) -> pb.LookUpResponse:
        """A look-up; for `more` see `look_up_request`."""
        return await cache.servicer.LookUp(look_up_request(task, **more), call)

    @staticmethod
    async def store(
        cache: Cache,
        missed: pb.LookUpResponse,
        answer: inference_pb2.TaskResult,
        call: Call = ANN,
        **more: Any,
    ) -> pb.StoreResponse:
        """Bring the answer to a look-up that missed; `more` are fields of the request."""
        request = pb.StoreRequest(token=missed.token, result=answer, paid_microusd=400, **more)
        return await cache.servicer.Store(request, call)

    async def add(
        self,
        cache: Cache,
        task: inference_pb2.Task,
        answer: inference_pb2.TaskResult,
        call: Call = ANN,
        **more: Any,
    ) -> pb.StoreResponse:
        """A look-up that misses, and its answer."""
        missed = await self.look_up(cache, task, call, **more)
        assert missed.receipt.outcome == common_pb2.CACHE_OUTCOME_MISS
        return await self.store(cache, missed, answer, call)

    @staticmethod
    def learnt_entries(cache: Cache) -> int:
        """Entries in the semantic scopes in memory."""
        assert cache.semantic_cache is not None
        return sum(len(scope) for scope in cache.semantic_cache.loaded_scopes)

    async def until_learnt(self, cache: Cache, entries: int) -> None:
        """Wait until the semantic scopes in memory hold so many entries."""
        await eventually(lambda: self.learnt_entries(cache) == entries, 20.0)

    async def teach(self, cache: Cache, prompts: int = 420) -> list[str]:
        """Look up and answer prompts of a few intents until similar ones are served; returns the
        prompts that were, all of them with the right answer.
        """
        rng = Random(4)
        served: list[str] = []
        stored = 0
        for _ in range(prompts):
            intent = rng.choice(INTENTS)
            text = prompt_of(intent, rng)
            found = await self.look_up(cache, chat(text))
            if found.receipt.outcome == common_pb2.CACHE_OUTCOME_SEMANTIC_HIT:
                served.append(text)
                assert json.loads(found.result.generate.message.content)["intent"] == intent
            elif found.receipt.outcome == common_pb2.CACHE_OUTCOME_MISS:
                await self.store(cache, found, chat_result(json.dumps({"intent": intent})))
                stored += 1
                if stored % 10 == 0:
                    await self.until_learnt(cache, stored)
        return served


def prompt_of(intent: str, rng: Random) -> str:
    """A random prompt of an intent, which is its first word."""
    please = "please " * rng.randint(0, 8)
    end = rng.choice(["now", "my card", "soon"])
    return f"{intent} {please}{end} {'x' * rng.randint(1, 40)}"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with embedded_store(tmp_path / "redis") as url:
        client = open_store(url)
        made = Rig(client)
        yield made
        await made.close()
        await client.aclose()
