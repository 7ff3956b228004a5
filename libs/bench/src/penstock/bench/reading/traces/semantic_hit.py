"""The journey of a semantic hit, from the look-up at the cache's port to the decision and back.

The cache is given texts with their answers until one other text, which is never stored, is served
from a similar one. What any call to the cache opens (`GetStats` is recorded for that) is left out.
"""

from __future__ import annotations

import json
import random

import grpc
from penstock.api.cache.v1 import cache_pb2, cache_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.bench.reading.traces.journey import (
    Journey,
    Recording,
    build_journey,
    entered_in_all,
    without_read,
)
from penstock.bench.reading.traces.recording import Recorders
from penstock.bench.reading.traces.stacks import TENANT, StackInputs, run_programs
from penstock.rpc.auth import CONTEXT_KEY, TOKEN_KEY
from penstock.stack.plan import StackPlan
from penstock.testkit.chats import chat, chat_result, look_up_request
from penstock.testkit.intents import intents_by_text

PROBE = "good morning, block my card, can you help"
MAX_EXAMPLES, EXAMPLES_PER_PROBE = 2_000, 25
NEVER_SERVED = "no similar text was served; check the cache's gate and its error bound"
SEED = 7
HITS_TRIED = 10
"""Look-ups per hit wanted: an audit is no hit, and one look-up in fifty is one."""
REMAINING_MS = 20_000
SEMANTIC_HIT = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT


async def follow(inputs: StackInputs, repeats: int) -> Journey:
    """Start a cache, store answers in it, and record one hit `repeats` times."""
    async with (
        run_programs(inputs, ("redis-cache", "cache"), {}, {}) as (plan, recorders),
        grpc.aio.insecure_channel(plan.addresses["cache"]) as channel,
    ):
        cache = FilledCache(cache_pb2_grpc.CacheServiceStub(channel), plan)
        await cache.store_until_served()
        calls = [(await recorders.record(cache.stats))[0] for _ in range(repeats)]
        hits = await _hits(recorders, cache, repeats)
    return build_journey(
        "Semantic hit",
        without_read(entered_in_all(hits), entered_in_all(calls)),
        hits[0],
        inputs.tree,
    )


async def _hits(recorders: Recorders, cache: FilledCache, repeats: int) -> list[Recording]:
    hits: list[Recording] = []
    for _ in range(HITS_TRIED * repeats):
        recording, served = await recorders.record(cache.probe)
        hits += [recording] if served else []
        if len(hits) == repeats:
            return hits
    raise RuntimeError(NEVER_SERVED)


class FilledCache:
    """A cache with answers to texts, called as a router calls it."""

    def __init__(self, cache: cache_pb2_grpc.CacheServiceStub, plan: StackPlan) -> None:
        principal = common_pb2.Principal(organisation=TENANT)
        context = common_pb2.CallContext(principal=principal, remaining_ms=REMAINING_MS)
        self._metadata = ((TOKEN_KEY, plan.token), (CONTEXT_KEY, context.SerializeToString()))
        self._cache = cache

    async def store_until_served(self) -> None:
        """Store texts with their intents until the probe is served.

        Raises:
            RuntimeError: it never is.
        """
        for number, (text, intent) in enumerate(_examples()):
            await self._store(text, intent)
            if number % EXAMPLES_PER_PROBE == 0 and await self.probe():
                return
        raise RuntimeError(NEVER_SERVED)

    async def probe(self) -> bool:
        """Look the probe up; whether it was served from a similar text."""
        found = await self._look_up(PROBE)
        if found.token:
            await self._cache.Store(
                cache_pb2.StoreRequest(token=found.token), metadata=self._metadata
            )
        return bool(found.receipt.outcome == SEMANTIC_HIT)

    async def stats(self) -> None:
        """A call without a decision."""
        await self._cache.GetStats(cache_pb2.GetStatsRequest(), metadata=self._metadata)

    async def _store(self, text: str, intent: str) -> None:
        found = await self._look_up(text)
        if found.token:
            answer = chat_result(json.dumps({"intent": intent}))
            request = cache_pb2.StoreRequest(token=found.token, result=answer, paid_microusd=400)
            await self._cache.Store(request, metadata=self._metadata)

    async def _look_up(self, text: str) -> cache_pb2.LookUpResponse:
        found: cache_pb2.LookUpResponse = await self._cache.LookUp(
            look_up_request(chat(text)), metadata=self._metadata
        )
        return found


def _examples() -> list[tuple[str, str]]:
    """Texts and their intents, in a fixed order; the probe is not among them."""
    examples = list(intents_by_text().items())
    random.Random(SEED).shuffle(examples)
    return [(text, intent) for text, intent in examples if text != PROBE][:MAX_EXAMPLES]
