"""Exact, coalesced and semantic hits: a scripted upstream (simulated) sorts requests into intents;
the real policy warms up and serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from itertools import product

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.registration import Registrar
from penstock.service.settings import ServiceSettings
from penstock.stack.stack import Stack
from penstock.testkit.instance import EmptyInstance
from rich.console import Console
from rich.table import Table

TITLE = "Cache: answers reused, exactly and by meaning (upstream simulated)"

MODEL = "demo-sorter"
PRICE = {
    "name": MODEL,
    "input_microusd_per_mtok": 3_000_000,
    "output_microusd_per_mtok": 15_000_000,
}
SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
SECONDS = 0.004
CALLERS = 8
STEPS = 900
SAME = 40
SYSTEM = "Sort the request into one intent. Answer with JSON."
INTENTS: dict[str, tuple[str, ...]] = {
    "block_card": (
        "block my card",
        "freeze the card that I lost",
        "my card was stolen, stop it",
        "please disable my debit card",
    ),
    "opening_hours": (
        "when do you open",
        "what are your opening hours",
        "until when is the branch open",
        "are you open at noon",
    ),
    "exchange_rate": (
        "what is the exchange rate",
        "how much is the euro in dollars",
        "tell me the currency rates",
        "your rate for pounds",
    ),
    "close_account": (
        "close my account",
        "I want to leave your bank",
        "please delete my account for good",
        "how do I end my contract",
    ),
    "raise_limit": (
        "raise my spending limit",
        "my card limit is too low",
        "let me spend more each month",
        "can I get a higher limit",
    ),
    "change_address": (
        "I moved to a new flat",
        "update my postal address",
        "my address has changed",
        "send letters to my new home",
    ),
    "reset_password": (
        "I forgot my password",
        "reset my login",
        "I cannot sign in any more",
        "help me get back into my account",
    ),
    "order_statement": (
        "send me a statement",
        "I need my statement for taxes",
        "print my statements",
        "mail me my account statement",
    ),
}
OPENERS = ("", "hello, ", "hi there, ", "excuse me, ", "good morning, ", "quick question: ")
CLOSERS = (
    "",
    " please",
    ", thank you",
    " as soon as possible",
    ", can you help",
    " if that is possible",
)


class Sorter(EmptyInstance):
    """Answers with the intent of the last turn, as a slow and dear model would."""

    def __init__(self, truth: dict[str, str]) -> None:
        self.truth = truth
        self.calls = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls += 1
        await asyncio.sleep(SECONDS)
        text = request.task.generate.messages[-1].content
        result = inference_pb2.TaskResult(revision="demo", compute_ms=SECONDS * 1e3)
        result.generate.message.role = "assistant"
        result.generate.message.content = json.dumps({"intent": self.truth[text]})
        result.generate.finish_reason = inference_pb2.FINISH_REASON_STOP
        result.usage.input_tokens, result.usage.output_tokens = len(text) // 4 + 12, 8
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        for index, member in enumerate(request.members):
            answer = await self.Compute(inference_pb2.ComputeRequest(task=member.task), call)
            response = inference_pb2.ComputeBatchResponse()
            response.results.add(index=index, result=answer.result).status.SetInParent()
            yield response

    async def ComputeStream(
        self, request: inference_pb2.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeStreamResponse]:
        answer = await self.Compute(inference_pb2.ComputeRequest(task=request.task), call)
        chunk = inference_pb2.GenerateChunk(delta=answer.result.generate.message.content)
        yield inference_pb2.ComputeStreamResponse(chunk=chunk)
        yield inference_pb2.ComputeStreamResponse(result=answer.result)


async def run(stack: Stack, console: Console) -> dict[str, float]:
    tenant = next(iter(stack.keys))
    said = random.Random(7)
    # the cache outlives a demo: each begins cold
    namespace = f"demo-{random.SystemRandom().randrange(10**9)}"
    truth = {
        f"{opener}{phrase}{closer}": intent
        for intent, phrases in INTENTS.items()
        for opener, phrase, closer in product(OPENERS, phrases, CLOSERS)
    }
    async with _sorter(stack, Sorter(truth)) as sorter:
        await stack.wait_for_instances(MODEL, 1, tenant)
        texts = said.sample(sorted(truth), STEPS)
        outcomes, wrong, paid, full = await _send(stack, tenant, namespace, texts, truth)
        before = sorter.calls
        same, _, _, _ = await _send(
            stack, tenant, f"{namespace}-same", [texts[0]] * SAME, truth, callers=SAME
        )
        again, _, _, _ = await _send(stack, tenant, namespace, texts[:100], truth)
        console.print(_table(outcomes, same, again, wrong, sorter.calls - before))
    console.print(
        f"{STEPS} requests cost ${paid / 1e6:.4f} instead of ${full / 1e6:.4f}; wrong answers "
        f"among the hits: {wrong}"
    )
    return {
        "cache_hits_exact": again["EXACT_HIT"],
        "cache_hits_coalesced": same["COALESCED"],
        "cache_hits_semantic": outcomes["SEMANTIC_HIT"],
        "cache_semantic_wrong": wrong,
        "cache_cost_cut": round(1 - paid / full, 3),
    }


@contextlib.asynccontextmanager
async def _sorter(stack: Stack, sorter: Sorter) -> AsyncIterator[Sorter]:
    model = inference_pb2.Model(
        name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["generate"], revision="demo"
    )
    settings = ServiceSettings(listen="127.0.0.1:0", drain_s=0)
    server = GrpcServer(
        "sorter", settings, [Endpoint(SERVICE, sorter, internal(stack.internal_token))]
    )
    await server.start()
    instance = router_pb2.Instance(
        id="sorter",
        address=server.address,
        models=[model],
        concurrency=16,
        tenancy=router_pb2.TENANCY_UPSTREAM,
    )
    registrar = Registrar(stack.addresses["router"], instance, stack.internal_token)
    registrar.start()
    try:
        yield sorter
    finally:
        await registrar.leave()
        await server.stop(None)


async def _send(
    stack: Stack,
    tenant: str,
    namespace: str,
    texts: list[str],
    truth: dict[str, str],
    callers: int = CALLERS,
) -> tuple[Counter[str], int, int, int]:
    """Send texts; returns outcomes, wrong answers among hits, and what was paid and what it would
    have cost, in micro-dollars.
    """
    outcomes, waiting = Counter[str](), iter(texts)
    wrong = paid = full = 0
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(namespace=namespace))

    async def caller() -> None:
        nonlocal wrong, paid, full
        for text in waiting:
            request = router_pb2.GenerateRequest(options=options)
            request.task.messages.add(role="system", content=SYSTEM)
            request.task.messages.add(role="user", content=text)
            answer = await stack.router.Generate(
                request, metadata=stack.metadata(tenant), timeout=20
            )
            name = common_pb2.CacheOutcome.Name(answer.receipt.cache.outcome).removeprefix(
                "CACHE_OUTCOME_"
            )
            outcomes[name] += 1
            paid += answer.receipt.cost.paid_microusd
            full += answer.receipt.cost.full_price_microusd
            wrong += (
                name == "SEMANTIC_HIT"
                and json.loads(answer.result.message.content)["intent"] != truth[text]
            )

    await asyncio.gather(*(caller() for _ in range(callers)))
    return outcomes, wrong, paid, full


def _table(
    outcomes: Counter[str], same: Counter[str], again: Counter[str], wrong: int, calls: int
) -> Table:
    table = Table(
        "",
        "miss",
        "exact",
        "coalesced",
        "by meaning",
        title=f"{wrong} wrong answers; the last two rows made {calls} upstream calls",
    )
    for name, counts in (
        (f"{STEPS} different requests", outcomes),
        (f"{SAME} times the same, at once", same),
        ("100 asked again", again),
    ):
        table.add_row(
            name,
            *(f"{counts[kind]}" for kind in ("MISS", "EXACT_HIT", "COALESCED", "SEMANTIC_HIT")),
        )
    return table
