"""Instances that go wrong on request, registered with a running stack's router.

Each kind of fault has a model of its own, and requests that show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from itertools import product

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.stack.stack import Stack
from penstock.testkit.instance import OneByOneInstance
from penstock.testkit.intents import INTENTS, PREFIXES, SUFFIXES, SYSTEM_PROMPT, IntentInstance
from penstock.testkit.registered import Registration, registered_instance

COMPUTE_S, COMPUTE_SPREAD = 0.020, 0.15
"""Median compute time, and the standard deviation of its logarithm."""
CONFIDENCE, CONFIDENCE_SPREAD = 0.86, 0.05
SLOTS = 4
MODELS = {"slow instance": "bench-slow", "error burst": "bench-failing", "drift": "bench-drifting"}
"""The model in which each kind of fault is injected; the others use INTENT_MODEL."""
INTENT_MODEL = "bench-sorter"
PRICES = (
    {"name": MODELS["drift"], "input_microusd_per_mtok": 1_000_000},
    {
        "name": INTENT_MODEL,
        "input_microusd_per_mtok": 3_000_000,
        "output_microusd_per_mtok": 15_000_000,
    },
)
LABELS = ("yes", "no")
FILLERS_BEFORE = (
    "",
    "I think ",
    "well, ",
    "as I said, ",
    "just now: ",
    "for my wife: ",
    "sorry, ",
    "dear team, ",
    "hey, ",
    "ok, ",
)
FILLERS_AFTER = (
    "",
    " now",
    " today",
    " this week",
    " for me",
    " in the app",
    " by phone",
    " again",
    " at once",
    " if I may ask",
)
"""Words that do not change a question's intent.

There must be more questions than are sent: a repeated one is an exact hit, which is never audited.
"""


class FaultyInstance(OneByOneInstance):
    """Answers after about 20 ms, four requests at a time, until a fault is injected.

    Attributes:
        slowdown: factor on the compute time.
        failing: share of the requests that raise INTERNAL.
        unsure: taken off the confidence of the first label.
    """

    def __init__(self, rng: random.Random) -> None:
        self.slowdown = 1.0
        self.failing = 0.0
        self.unsure = 0.0
        self._rng = rng
        self._slots = asyncio.Semaphore(SLOTS)

    def repair(self) -> None:
        """End every fault."""
        self.slowdown = 1.0
        self.failing = 0.0
        self.unsure = 0.0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        """See InferenceService."""
        seconds = COMPUTE_S * self.slowdown * self._rng.lognormvariate(0.0, COMPUTE_SPREAD)
        async with self._slots:
            await asyncio.sleep(seconds)
        if self._rng.random() < self.failing:
            raise Fault(Reason.INTERNAL, "this instance fails on purpose")
        result = inference_pb2.TaskResult(revision="bench", compute_ms=seconds * 1e3)
        result.usage.input_tokens = 20
        if request.task.HasField("classify"):
            self._classify(result)
        else:
            result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    def _classify(self, result: inference_pb2.TaskResult) -> None:
        drawn = self._rng.gauss(CONFIDENCE - self.unsure, CONFIDENCE_SPREAD)
        confidence = min(0.999, max(0.001, drawn))
        row = result.classify.classifications.add()
        row.labels.add(label=LABELS[0], score=confidence)
        row.labels.add(label=LABELS[1], score=1.0 - confidence)


class ChangingIntentInstance(IntentInstance):
    """An intent model whose right answer changes for the intents in `changed`."""

    changed: frozenset[str] = frozenset()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        """See InferenceService."""
        answer = await super().Compute(request, call)
        intent = self.intents[request.task.generate.messages[-1].content]
        if intent in self.changed:
            changed = {"intent": f"{intent}_by_new_rules"}
            answer.result.generate.message.content = json.dumps(changed)
        return answer


class FaultyInstances:
    """All instances of the benchmark, and the requests for them."""

    def __init__(self, rng: random.Random) -> None:
        intents = {
            f"{prefix}{before}{phrase}{after}{suffix}": intent
            for intent, phrases in INTENTS.items()
            for prefix, before, phrase, after, suffix in product(
                PREFIXES, FILLERS_BEFORE, phrases, FILLERS_AFTER, SUFFIXES
            )
        }
        self._texts = iter(rng.sample(sorted(intents), len(intents)))
        self._intent_instance = ChangingIntentInstance(intents)
        self._by_kind = {kind: FaultyInstance(rng) for kind in MODELS}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models served here."""
        return (*MODELS.values(), INTENT_MODEL)

    @property
    def registrations(self) -> list[tuple[object, Registration]]:
        """Each servicer and what the router is told of it."""
        local: list[tuple[object, Registration]] = [
            (instance, _registration(MODELS[kind], ("embed", "classify")))
            for kind, instance in self._by_kind.items()
        ]
        upstream = _registration(INTENT_MODEL, ("generate",), router_pb2.TENANCY_UPSTREAM)
        return [*local, (self._intent_instance, upstream)]

    def inject(self, kind: str, strength: float) -> None:
        """Begin a fault; strengths mean the same as in the replay."""
        if kind == "slow instance":
            self._by_kind[kind].slowdown = strength
        elif kind == "error burst":
            self._by_kind[kind].failing = strength
        elif kind == "drift":
            self._by_kind[kind].unsure = strength
        elif kind == "cache poisoning":
            changed = list(INTENTS)[: round(strength * len(INTENTS))]
            self._intent_instance.changed = frozenset(changed)
        else:
            raise ValueError(f"no fault of the kind {kind!r}")

    def repair(self) -> None:
        """End every fault."""
        for instance in self._by_kind.values():
            instance.repair()
        self._intent_instance.changed = frozenset()

    def new_question(self) -> router_pb2.GenerateRequest:
        """A question in words that were not sent before."""
        request = router_pb2.GenerateRequest(options=router_pb2.CallOptions(model=INTENT_MODEL))
        request.task.messages.add(role=inference_pb2.ROLE_SYSTEM, content=SYSTEM_PROMPT)
        request.task.messages.add(role=inference_pb2.ROLE_USER, content=next(self._texts))
        return request

    def classification(self) -> router_pb2.ClassifyRequest:
        """A text to classify past the cache."""
        bypass = router_pb2.CachePolicy(bypass=True)
        options = router_pb2.CallOptions(model=MODELS["drift"], cache=bypass)
        return router_pb2.ClassifyRequest(texts=["is this message urgent"], options=options)


def _registration(
    model: str,
    tasks: tuple[str, ...],
    tenancy: router_pb2.Tenancy = router_pb2.TENANCY_UNSPECIFIED,
) -> Registration:
    return Registration(
        f"{model}-1",
        model,
        tasks,
        concurrency=16,
        revision="bench",
        max_input_tokens=512,
        tenancy=tenancy,
    )


@contextlib.asynccontextmanager
async def faulty_instances(stack: Stack, rng: random.Random) -> AsyncIterator[FaultyInstances]:
    """Serve all instances in this process and register them until the block ends."""
    instances = FaultyInstances(rng)
    async with contextlib.AsyncExitStack() as running:
        for servicer, registration in instances.registrations:
            await running.enter_async_context(
                registered_instance(
                    servicer, registration, stack.addresses["registry"], stack.registering()
                )
            )
        yield instances
