"""Coalescing: a Zipf replay by 64 callers; no request is computed twice while its answer is valid.

The routers' cache look-up, the cache service and its Redis are the serving ones, in one process,
for two routers. The upstream is a pause of 20 ms that is counted. A tenth of the callers leave
before their answer, so that another caller has to take over the computation.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from penstock.api.cache.v1 import cache_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.data_sets import BANKING77, banking77
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Bound, Result, Table
from penstock.cache.build import Models, assemble
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.prices.prices import Prices
from penstock.router.caching.cache_lookup import CacheLookUp
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Bypass, Hit, perform
from penstock.rpc.call import Call, Principal
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.program import loop_factory
from penstock.service.store import embedded_store, open_store
from penstock.tasks.kinds import EMBED
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import peer_to

SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
SEED = 9
CALLERS = 64
ROUTERS = 2
UPSTREAM_S = 0.020
ZIPF_EXPONENT = 0.9
LEAVING_SHARE = 0.1
BOUNDS = {"duplicate_upstream_calls": Bound("<=", 0), "redundant_cut": Bound(">=", 0.4)}


class Replay:
    """The callers.

    Attributes:
        computed: computations of the upstream, by text.
        outcomes: answers by how they came about.
        left: callers that left before their answer.
    """

    def __init__(self, lookups: Sequence[CacheLookUp], texts: Sequence[str]) -> None:
        self.computed: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.left = 0
        self._lookups = lookups
        self._texts = texts

    async def run(self, rng: random.Random) -> None:
        """Send every text."""
        waiting = iter(self._texts)

        async def caller(number: int) -> None:
            lookup = self._lookups[number % len(self._lookups)]
            for text in waiting:
                call = asyncio.create_task(self._call(lookup, text))
                if rng.random() < LEAVING_SHARE:
                    await asyncio.wait([call], timeout=UPSTREAM_S / 2)
                    self.left += call.cancel()
                await asyncio.wait([call])

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    async def _call(self, lookup: CacheLookUp, text: str) -> None:
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        call = Call(Principal("bench"))
        request = ResolvedRequest(router_pb2.CallOptions(), EMBED, task, "m", EMBED.estimate(task))
        looked = await lookup.look_up(call, request, "")
        assert not isinstance(looked, Bypass)
        if isinstance(looked, Hit):
            outcome = common_pb2.CacheOutcome.Name(looked.cache.outcome)
            self.outcomes[outcome.removeprefix("CACHE_OUTCOME_")] += 1
            return
        result = None
        try:
            await asyncio.sleep(UPSTREAM_S)
            result = inference_pb2.TaskResult(revision="1", compute_ms=UPSTREAM_S * 1e3)
            self.computed[text] += 1
            self.outcomes["MISS"] += 1
        finally:
            receipt = common_pb2.Receipt() if result else None
            await asyncio.shield(perform(lookup.store(looked.ticket, result, receipt)))


def run(options: Options) -> Result:
    """Measure."""
    rng = random.Random(SEED)
    texts = _texts(options)
    weights = [1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(len(texts))]
    requests = rng.choices(texts, weights, k=400 if options.quick else 20_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        replay = runner.run(_replay(Path(folder), requests, rng))
    upstream_calls = replay.computed.total()
    answers = replay.outcomes.total()
    figures = {
        "duplicate_upstream_calls": upstream_calls - len(replay.computed),
        "redundant_cut": 1 - upstream_calls / answers,
        "requests": answers,
        "upstream_calls": upstream_calls,
        "callers_that_left": replay.left,
    }
    context = {
        "data": options.source(BANKING77),
        "callers": CALLERS,
        "zipf_exponent": ZIPF_EXPONENT,
        "leave": LEAVING_SHARE,
    }
    rows = tuple(replay.outcomes.most_common())
    return Result(figures, BOUNDS, context, (Table("Answers", ("how", "count"), rows),))


async def _replay(folder: Path, requests: Sequence[str], rng: random.Random) -> Replay:
    async with embedded_store(folder / "redis") as url:
        client = open_store(url)
        clock = SystemClock()
        settings = CacheSettings(secret="bench")
        outside = outside_for_tests(settings)
        cache = assemble(settings, CacheSection(), client, outside, Models())
        lookups = [
            CacheLookUp(peer_to(SERVICE, cache.servicer, clock), Current(Prices({})), clock)
            for _ in range(ROUTERS)
        ]
        replay = Replay(lookups, requests)
        await replay.run(rng)
        for lookup in lookups:
            await lookup.close()
        await client.aclose()
    return replay


def _texts(options: Options) -> list[str]:
    rows = banking77(options, "test")
    if rows is None:
        return [f"question number {number}" for number in range(2_000)]
    return sorted({row.text for row in rows})
