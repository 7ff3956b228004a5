"""Instances that go wrong when they are told to, registered with a running stack's router; and the
questions that suit them.
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
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.rpc.registration import Registrar
from penstock.service.settings import ServiceSettings
from penstock.stack.demo_parts.cache import CLOSERS, INTENTS, OPENERS, SYSTEM, Sorter
from penstock.stack.demo_parts.router import SERVICE, Sleeper
from penstock.stack.stack import Stack

SECONDS, SCATTER = 0.020, 0.15
SURE, SURE_SCATTER = 0.86, 0.05
MODELS = {"slow instance": "bench-slow", "error burst": "bench-failing", "drift": "bench-drifting"}
SORTER = "bench-sorter"
CHEAP = {"name": MODELS["drift"], "input_microusd_per_mtok": 1_000_000}
DEAR = {
    "name": SORTER,
    "input_microusd_per_mtok": 3_000_000,
    "output_microusd_per_mtok": 15_000_000,
}
LABELS = ("yes", "no")
BEFORE = (
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
AFTER = (
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
"""Words that change nothing: there must be more questions than are asked, for an exact hit is
nothing to audit.
"""


class Spoilt(Sleeper):
    """Answers after about 20 ms, four at a time, until it is spoilt: times slower, a share failing,
    less sure of its labels.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._slots = asyncio.Semaphore(4)
        self.slower, self.failing, self.unsure = 1.0, 0.0, 0.0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        seconds = SECONDS * self.slower * self._rng.lognormvariate(0.0, SCATTER)
        async with self._slots:
            await asyncio.sleep(seconds)
        if self._rng.random() < self.failing:
            raise Fault(Reason.INTERNAL, "this instance fails on purpose")
        result = inference_pb2.TaskResult(revision="bench", compute_ms=seconds * 1e3)
        result.usage.input_tokens = 20
        if request.task.HasField("classify"):
            sure = min(0.999, max(0.001, self._rng.gauss(SURE - self.unsure, SURE_SCATTER)))
            row = result.classify.classifications.add()
            row.labels.add(label=LABELS[0], score=sure)
            row.labels.add(label=LABELS[1], score=1.0 - sure)
        else:
            result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)


class Changing(Sorter):
    """Sorts questions into intents; while it is spoilt, a share of the intents has another right
    answer than what is cached.
    """

    def __init__(self, truth: dict[str, str]) -> None:
        super().__init__(truth)
        self.changed: frozenset[str] = frozenset()

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        answer = await super().Compute(request, call)
        intent = self.truth[request.task.generate.messages[-1].content]
        if intent in self.changed:
            answer.result.generate.message.content = json.dumps(
                {"intent": f"{intent}_by_new_rules"}
            )
        return answer


class Instances:
    """All of them, and what is asked of them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.truth = {
            f"{opener}{before}{phrase}{after}{closer}": intent
            for intent, phrases in INTENTS.items()
            for opener, before, phrase, after, closer in product(
                OPENERS, BEFORE, phrases, AFTER, CLOSERS
            )
        }
        self._texts = iter(rng.sample(sorted(self.truth), len(self.truth)))
        self.sorter = Changing(self.truth)
        self.servers = {kind: Spoilt(rng) for kind in MODELS}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models served here."""
        return (*MODELS.values(), SORTER)

    def model_of(self, kind: str) -> str:
        """The model that a kind of fault is made in."""
        return MODELS[kind]

    def spoil(self, kind: str, strength: float) -> None:
        """Begin a fault; strengths are those of the replay."""
        if kind == "slow instance":
            self.servers[kind].slower = strength
        elif kind == "error burst":
            self.servers[kind].failing = strength
        elif kind == "drift":
            self.servers[kind].unsure = strength
        else:
            self.sorter.changed = frozenset(list(INTENTS)[: round(strength * len(INTENTS))])

    def heal(self) -> None:
        """End every fault."""
        for server in self.servers.values():
            server.slower, server.failing, server.unsure = 1.0, 0.0, 0.0
        self.sorter.changed = frozenset()

    def question(self) -> router_pb2.GenerateRequest:
        """A question that was not asked before in these words."""
        request = router_pb2.GenerateRequest(options=router_pb2.CallOptions(model=SORTER))
        request.task.messages.add(role="system", content=SYSTEM)
        request.task.messages.add(role="user", content=next(self._texts))
        return request

    def sorting(self) -> router_pb2.ClassifyRequest:
        """A text to label, which no cache answers."""
        options = router_pb2.CallOptions(
            model=MODELS["drift"], cache=router_pb2.CachePolicy(bypass=True)
        )
        return router_pb2.ClassifyRequest(texts=["is this message urgent"], options=options)


@contextlib.asynccontextmanager
async def registered(stack: Stack, rng: random.Random) -> AsyncIterator[Instances]:
    """The instances, served in this process and known to the stack's router; gone afterwards."""
    instances = Instances(rng)
    served = [
        (MODELS[kind], ["embed", "classify"], server) for kind, server in instances.servers.items()
    ]
    async with contextlib.AsyncExitStack() as owned:
        for name, tasks, servicer in (*served, (SORTER, ["generate"], instances.sorter)):
            settings = ServiceSettings(listen="127.0.0.1:0", drain_s=0)
            server = GrpcServer(
                name, settings, [Endpoint(SERVICE, servicer, internal(stack.internal_token))]
            )
            await server.start()
            owned.push_async_callback(server.stop, None)
            model = inference_pb2.Model(
                name=name,
                state=inference_pb2.MODEL_STATE_READY,
                tasks=tasks,
                revision="bench",
                max_input_tokens=512,
            )
            tenancy = (
                router_pb2.TENANCY_UPSTREAM if name == SORTER else router_pb2.TENANCY_UNSPECIFIED
            )
            instance = router_pb2.Instance(
                id=f"{name}-1",
                address=server.address,
                models=[model],
                concurrency=16,
                tenancy=tenancy,
            )
            registrar = Registrar(stack.addresses["router"], instance, stack.internal_token)
            registrar.start()
            owned.push_async_callback(registrar.leave)
        yield instances
