"""Coalescing: a Zipf replay by 64 callers to a simulated upstream; no generation is asked for twice
while its answer is valid.

The routers' cache look-up as it is shipped, the cache service and its store are the serving ones,
in one process, for two routers. The upstream is a pause of 20 ms; it counts what was started, also
where the caller left and the work was thrown away. A tenth of the callers leave before their
answer, so that another caller has to take over the computation. Generations at temperature 0 are
judged. Embeddings are reported beside them: they are cheap to repeat, so a router that knows that
the cache has no answer does not ask it and brings the answer afterwards, and the two routers may
then compute the same text at the same moment. Each seed is a replay of its own with an empty cache.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.api.cache.v1 import cache_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.data_sets import BANKING77, banking77
from penstock.bench.harness.intervals import bootstrap, means
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
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
from penstock.tasks.kind import Kind
from penstock.tasks.kinds import EMBED, GENERATE
from penstock.testkit.outside import outside_for_tests
from penstock.testkit.server import peer_to

SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
SEEDS = tuple(range(10, 18))
CALLERS = 64
ROUTERS = 2
UPSTREAM_S = 0.020
ZIPF_EXPONENT = 0.9
LEAVING_SHARE = 0.1
BOUNDS = {"duplicate_upstream_calls": Bound("<=", 0), "redundant_cut": Bound(">=", 0.4)}


def _generate_task(text: str) -> inference_pb2.Task:
    turn = inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text)
    return inference_pb2.Task(generate=inference_pb2.GenerateTask(messages=[turn], temperature=0.0))


def _embed_task(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


@dataclass(frozen=True)
class Workload:
    """A kind of task, how one is made of a text, and what the upstream answers to all of them."""

    kind: Kind
    task_of: Callable[[str], inference_pb2.Task]
    result: inference_pb2.TaskResult


GENERATIONS = Workload(
    GENERATE,
    _generate_task,
    inference_pb2.TaskResult(
        revision="1",
        compute_ms=UPSTREAM_S * 1e3,
        generate=inference_pb2.GenerateResult(
            message=inference_pb2.Message(role=inference_pb2.ROLE_ASSISTANT, content="an answer"),
            finish_reason=inference_pb2.FINISH_REASON_STOP,
        ),
    ),
)
EMBEDDINGS = Workload(
    EMBED,
    _embed_task,
    inference_pb2.TaskResult(
        revision="1",
        compute_ms=UPSTREAM_S * 1e3,
        embed=inference_pb2.EmbedResult(embeddings=[inference_pb2.Embedding(values=[1.0])]),
    ),
)


@dataclass
class Replay:
    """What became of the requests of one seed and kind.

    Attributes:
        sent: requests.
        started: computations that the upstream began.
        computed: computations that it ended, by text.
        outcomes: answers by how they came about.
        left: callers that left before their answer.
    """

    sent: int = 0
    started: int = 0
    computed: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    left: int = 0

    @property
    def duplicates(self) -> int:
        """Texts computed to the end more than once, each beyond the first."""
        return self.computed.total() - len(self.computed)

    def figures(self) -> dict[str, float]:
        """Of one replay; `redundant_cut` is of the requests, what was thrown away included."""
        return {
            "duplicate_upstream_calls": float(self.duplicates),
            "redundant_cut": 1 - self.started / self.sent,
            "upstream_starts": float(self.started),
            "abandoned_starts": float(self.started - self.computed.total()),
            "requests": float(self.sent),
            "callers_that_left": float(self.left),
        }


class Callers:
    """The callers of one replay, who share the routers' look-ups."""

    def __init__(
        self, workload: Workload, lookups: Sequence[CacheLookUp], rng: random.Random
    ) -> None:
        self.replay = Replay()
        self._workload = workload
        self._lookups = lookups
        self._rng = rng

    async def send(self, texts: Sequence[str]) -> None:
        """Send every text."""
        waiting = iter(texts)

        async def caller(number: int) -> None:
            lookup = self._lookups[number % len(self._lookups)]
            for text in waiting:
                self.replay.sent += 1
                call = asyncio.create_task(self._call(lookup, text))
                if self._rng.random() < LEAVING_SHARE:
                    await asyncio.wait([call], timeout=UPSTREAM_S / 2)
                    self.replay.left += call.cancel()
                await asyncio.wait([call])

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))

    async def _call(self, lookup: CacheLookUp, text: str) -> None:
        kind, task = self._workload.kind, self._workload.task_of(text)
        call, estimate = Call(Principal("bench")), kind.estimate(task)
        request = ResolvedRequest(router_pb2.CallOptions(), kind, task, "m", estimate)
        looked = await lookup.look_up(call, request, "")
        assert not isinstance(looked, Bypass)
        if isinstance(looked, Hit):
            outcome = common_pb2.CacheOutcome.Name(looked.cache.outcome)
            self.replay.outcomes[outcome.removeprefix("CACHE_OUTCOME_")] += 1
            return
        result = None
        self.replay.started += 1
        try:
            await asyncio.sleep(UPSTREAM_S)
            result = self._workload.result
            self.replay.computed[text] += 1
            self.replay.outcomes["MISS"] += 1
        finally:
            receipt = common_pb2.Receipt() if result else None
            await asyncio.shield(perform(lookup.store(looked.ticket, result, receipt)))


def run(options: Options) -> Result:
    """Measure."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    generations = _replays(options, GENERATIONS, seeds)
    embeddings = _replays(options, EMBEDDINGS, seeds)
    of_generations = [replay.figures() for replay in generations]
    of_embeddings = [
        {f"embed_{name}": value for name, value in replay.figures().items()}
        for replay in embeddings
    ]
    figures = means(of_generations) | means(of_embeddings)
    figures["duplicate_upstream_calls"] = sum(replay.duplicates for replay in generations)
    intervals = bootstrap(of_generations, means, "seeds") | bootstrap(of_embeddings, means, "seeds")
    intervals.pop("duplicate_upstream_calls", None)
    context = {
        "data": options.source(BANKING77),
        "seeds": list(seeds),
        "callers": CALLERS,
        "zipf_exponent": ZIPF_EXPONENT,
        "leave": LEAVING_SHARE,
    }
    tables = (
        _outcomes("Answers to generations", generations),
        _outcomes("To embeddings", embeddings),
    )
    return Result(
        figures,
        BOUNDS,
        context,
        tables,
        intervals=intervals,
        exact=frozenset({"duplicate_upstream_calls"}),
    )


def _outcomes(title: str, replays: Sequence[Replay]) -> Table:
    total = sum((replay.outcomes for replay in replays), Counter[str]())
    return Table(title, ("how", "count"), tuple(total.most_common()))


def _replays(options: Options, workload: Workload, seeds: Sequence[int]) -> list[Replay]:
    """One replay for each seed, each with a cache of its own."""
    texts = _texts(options)
    weights = [1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(len(texts))]
    replays = []
    for seed in seeds:
        say(f"coalescing: {workload.kind.name}, seed {seed}")
        rng = random.Random(seed)
        rng.shuffle(texts)
        requests = rng.choices(texts, weights, k=400 if options.quick else 6_000)
        with (
            tempfile.TemporaryDirectory() as folder,
            asyncio.Runner(loop_factory=loop_factory()) as runner,
        ):
            replays.append(runner.run(_replay(Path(folder), workload, requests, rng)))
    return replays


async def _replay(
    folder: Path, workload: Workload, requests: Sequence[str], rng: random.Random
) -> Replay:
    async with embedded_store(folder / "store") as url:
        client = open_store(url)
        clock = SystemClock()
        settings = CacheSettings(secret="bench")
        outside = outside_for_tests(settings)
        cache = assemble(settings, CacheSection(), client, outside, Models())
        lookups = [
            CacheLookUp(peer_to(SERVICE, cache.servicer, clock), Current(Prices({})), clock)
            for _ in range(ROUTERS)
        ]
        for lookup in lookups:
            lookup.start()
        callers = Callers(workload, lookups, rng)
        await callers.send(requests)
        for lookup in lookups:
            await lookup.close()
        await client.aclose()
    return callers.replay


def _texts(options: Options) -> list[str]:
    rows = banking77(options, "test")
    if rows is None:
        return [f"question number {number}" for number in range(2_000)]
    return sorted({row.text for row in rows})
