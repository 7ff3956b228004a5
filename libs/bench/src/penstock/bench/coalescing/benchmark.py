"""Coalescing: a Zipf replay by 64 callers through two routers' look-ups and one cache; no request
is computed twice while its answer is good.

The routers' stage, the cache service and its Redis are the real ones, in one process; the upstream
is a pause of 20 ms that counts. A tenth of the callers leave in the middle, so that leads are
handed over.
"""

from __future__ import annotations

import asyncio
import csv
import random
import tempfile
from collections import Counter
from pathlib import Path

from penstock.api.cache.v1 import cache_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.cache.build import Models, assemble
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.prices.prices import Prices
from penstock.router.caching.cache_lookup import CacheLookUp
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Hit, Miss, perform
from penstock.rpc.call import Call, Principal
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.program import loop_factory
from penstock.service.store import embedded_store, open_store
from penstock.tasks.kinds import EMBED
from penstock.testkit.world import world

SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
CALLERS = 64
UPSTREAM_S = 0.020
EXPONENT = 0.9
LEAVE = 0.1
BOUNDS = {"duplicate_upstream_calls": Bound("<=", 0), "redundant_cut": Bound(">=", 0.4)}


class Replay:
    """The callers, and what the upstream has been asked."""

    def __init__(self, look_ups: list[CacheLookUp], texts: list[str]) -> None:
        self.look_ups, self.texts = look_ups, texts
        self.computed: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.left = 0

    async def run(self, rng: random.Random) -> None:
        waiting = iter(self.texts)

        async def caller(number: int) -> None:
            for text in waiting:
                asked = asyncio.create_task(self._ask(self.look_ups[number % 2], text))
                if rng.random() < LEAVE:
                    await asyncio.wait([asked], timeout=UPSTREAM_S / 2)
                    self.left += asked.cancel()
                await asyncio.wait([asked])

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    async def _ask(self, look_up: CacheLookUp, text: str) -> None:
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        call = Call(Principal("bench"))
        request = ResolvedRequest(router_pb2.CallOptions(), EMBED, task, "m", EMBED.estimate(task))
        found = await look_up.look_up(call, request, "")
        if isinstance(found, Hit):
            name = common_pb2.CacheOutcome.Name(found.cache.outcome)
            self.outcomes[name.removeprefix("CACHE_OUTCOME_")] += 1
            return
        assert isinstance(found, Miss)
        result = None
        try:
            await asyncio.sleep(UPSTREAM_S)
            result = inference_pb2.TaskResult(revision="1", compute_ms=UPSTREAM_S * 1e3)
            self.computed[text] += 1
            self.outcomes["MISS"] += 1
        finally:
            await asyncio.shield(
                perform(
                    look_up.store(found.ticket, result, common_pb2.Receipt() if result else None)
                )
            )


def run(options: Options) -> Result:
    rng = random.Random(9)
    texts = _texts(options)
    weights = [1 / (rank + 1) ** EXPONENT for rank in range(len(texts))]
    asked = rng.choices(texts, weights, k=400 if options.quick else 20_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        replay = runner.run(_replayed(Path(folder), asked, rng))
    calls = sum(replay.computed.values())
    answered = sum(replay.outcomes.values())
    figures = {
        "duplicate_upstream_calls": calls - len(replay.computed),
        "redundant_cut": 1 - calls / answered,
        "requests": answered,
        "upstream_calls": calls,
        "callers_that_left": replay.left,
    }
    rows = tuple((name, count) for name, count in replay.outcomes.most_common())
    context = {
        "data": options.source("banking77"),
        "callers": CALLERS,
        "zipf_exponent": EXPONENT,
        "leave": LEAVE,
    }
    return Result(figures, BOUNDS, context, (Table("Answers", ("how", "count"), rows),))


async def _replayed(folder: Path, asked: list[str], rng: random.Random) -> Replay:
    async with embedded_store(folder / "redis", "cache") as url:
        client, clock = open_store(url), SystemClock()
        settings = CacheSettings(internal_token="bench")
        cache = assemble(settings, CacheSection(), client, world(settings), Models())
        look_ups = [
            CacheLookUp(
                InProcessPeer(SERVICE, cache.servicer, clock=clock), Current(Prices({})), clock
            )
            for _ in range(2)
        ]
        replay = Replay(look_ups, asked)
        await replay.run(rng)
        for look_up in look_ups:
            await look_up.close()
        await client.aclose()
    return replay


def _texts(options: Options) -> list[str]:
    if options.data is None or options.source("banking77") == "generated":
        return [f"question number {number}" for number in range(2_000)]
    with (options.data / "banking77" / "test.csv").open(newline="") as file:
        return sorted({row["text"] for row in csv.DictReader(file)})
