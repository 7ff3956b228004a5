"""The journey of a semantic hit, from the look-up at the cache's port to the decision and back.

The cache is taught by look-ups and answers until one text, which is never stored, is served from
a like one. What any call to the cache opens (`GetStats` is recorded for that) is taken away.
"""

from __future__ import annotations

import itertools
import json
import random

import grpc
from penstock.api.cache.v1 import cache_pb2, cache_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.bench.reading.traces.journey import (
    Journey,
    Recording,
    beyond,
    entered_always,
    journey,
)
from penstock.bench.reading.traces.recording import Recorders
from penstock.bench.reading.traces.stacks import TENANT, Ground, alone
from penstock.rpc.auth import CONTEXT_KEY, TOKEN_KEY
from penstock.stack.demo_parts.cache import CLOSERS, INTENTS, OPENERS
from penstock.stack.plan import StackPlan
from penstock.testkit.chats import asking, chat, said

PROBE = "good morning, block my card, can you help"
MOST_LESSONS, LESSONS_A_PROBE = 2_000, 25
NEVER = "the cache serves no like request; see its gate and its bound"
HIT = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT


async def follow(ground: Ground, repeats: int) -> Journey:
    """Start a cache, teach it, and record one hit `repeats` times."""
    async with (
        alone(ground, ("redis-cache", "cache"), {}, {}) as (plan, recorders),
        grpc.aio.insecure_channel(plan.addresses["cache"]) as channel,
    ):
        pupil = Pupil(cache_pb2_grpc.CacheServiceStub(channel), plan)
        await pupil.learn()
        carrying = [(await recorders.record(pupil.stats))[0] for _ in range(repeats)]
        hits = await _hits(recorders, pupil, repeats)
    return journey(
        "Semantic hit", beyond(entered_always(hits), entered_always(carrying)), hits[0], ground.tree
    )


async def _hits(recorders: Recorders, pupil: Pupil, repeats: int) -> list[Recording]:
    hits: list[Recording] = []
    for _ in range(10 * repeats):  # an audit is no hit, and one look-up in fifty is one
        recording, served = await recorders.record(pupil.probe)
        hits += [recording] if served else []
        if len(hits) == repeats:
            return hits
    raise RuntimeError(NEVER)


class Pupil:
    """A cache that is asked and taught as a router would."""

    def __init__(self, cache: cache_pb2_grpc.CacheServiceStub, plan: StackPlan) -> None:
        principal = common_pb2.Principal(organisation=TENANT)
        context = common_pb2.CallContext(principal=principal, remaining_ms=20_000)
        self._metadata = ((TOKEN_KEY, plan.token), (CONTEXT_KEY, context.SerializeToString()))
        self._cache = cache

    async def learn(self) -> None:
        """Teach requests and their intents until the probe is served.

        Raises:
            RuntimeError: it never is.
        """
        for number, (text, intent) in enumerate(_lessons()):
            await self._teach(text, intent)
            if number % LESSONS_A_PROBE == 0 and await self.probe():
                return
        raise RuntimeError(NEVER)

    async def probe(self) -> bool:
        """Look the probe up; whether it was served by a like request."""
        found = await self._look_up(PROBE)
        if found.token:
            await self._cache.Store(
                cache_pb2.StoreRequest(token=found.token), metadata=self._metadata
            )
        return bool(found.receipt.outcome == HIT)

    async def stats(self) -> None:
        """A call that decides nothing."""
        await self._cache.GetStats(cache_pb2.GetStatsRequest(), metadata=self._metadata)

    async def _teach(self, text: str, intent: str) -> None:
        found = await self._look_up(text)
        if found.token:
            answer = said(json.dumps({"intent": intent}))
            request = cache_pb2.StoreRequest(token=found.token, result=answer, paid_microusd=400)
            await self._cache.Store(request, metadata=self._metadata)

    async def _look_up(self, text: str) -> cache_pb2.LookUpResponse:
        found: cache_pb2.LookUpResponse = await self._cache.LookUp(
            asking(chat(text)), metadata=self._metadata
        )
        return found


def _lessons() -> list[tuple[str, str]]:
    """Texts and their intents, in a fixed order; the probe is not among them."""
    every = [
        (f"{opener}{phrase}{closer}", intent)
        for intent, phrases in INTENTS.items()
        for opener, phrase, closer in itertools.product(OPENERS, phrases, CLOSERS)
    ]
    random.Random(7).shuffle(every)
    return [lesson for lesson in every if lesson[0] != PROBE][:MOST_LESSONS]
