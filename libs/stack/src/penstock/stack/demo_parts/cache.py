"""Answers reused exactly, by coalescing and by meaning, before a simulated upstream model."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.testkit.intents import SYSTEM_PROMPT, IntentInstance, intents_by_text
from penstock.testkit.registered import Registration, registered_instance
from rich.console import Console
from rich.table import Table

TITLE = "cache: answers reused, exactly and by meaning (upstream simulated)"
MODEL = "demo-sorter"
PRICE = {
    "name": MODEL,
    "input_microusd_per_mtok": 3_000_000,
    "output_microusd_per_mtok": 15_000_000,
}
REGISTRATION = Registration(
    "sorter", MODEL, ("generate",), concurrency=16, tenancy=router_pb2.TENANCY_UPSTREAM
)
SEED = 7
CALLERS = 8
DIFFERENT_TEXTS = 400
SAME_TEXTS = 40
REPEATED_TEXTS = 50
CALL_TIMEOUT_S = 20
SHOWN_OUTCOMES = {
    "MISS": "miss",
    "EXACT_HIT": "exact",
    "COALESCED": "coalesced",
    "SEMANTIC_HIT": "by meaning",
}


@dataclass
class Tally:
    """What a list of texts came to: outcomes, wrong answers by meaning, and micro-dollars."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    paid_microusd: int = 0
    full_price_microusd: int = 0


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Send different texts, one text many times at once, and some of the first texts again."""
    # The cache outlives a demo; a new namespace begins empty.
    namespace = f"demo-{random.SystemRandom().randrange(10**9)}"
    intents = intents_by_text()
    texts = random.Random(SEED).sample(sorted(intents), DIFFERENT_TEXTS)
    instance = IntentInstance(intents)
    traffic = Traffic(stack, intents)
    async with registered_instance(
        instance, REGISTRATION, stack.addresses["router"], stack.internal_token
    ):
        await stack.wait_for_instances(MODEL, 1, traffic.tenant)
        different = await traffic.send(texts, namespace, CALLERS)
        calls_before = instance.calls
        same = await traffic.send([texts[0]] * SAME_TEXTS, f"{namespace}-same", SAME_TEXTS)
        repeated = await traffic.send(texts[:REPEATED_TEXTS], namespace, CALLERS)
        console.print(_table(different, same, repeated, instance.calls - calls_before))
    console.print(
        f"{DIFFERENT_TEXTS} requests cost ${different.paid_microusd / 1e6:.4f} instead of "
        f"${different.full_price_microusd / 1e6:.4f}; wrong answers among the hits: "
        f"{different.wrong}"
    )
    return {
        "cache_hits_exact": repeated.outcomes["EXACT_HIT"],
        "cache_hits_coalesced": same.outcomes["COALESCED"],
        "cache_hits_semantic": different.outcomes["SEMANTIC_HIT"],
        "cache_semantic_wrong": different.wrong,
        "cache_cost_cut": round(1 - different.paid_microusd / different.full_price_microusd, 3),
    }


class Traffic:
    """Sends texts through the router and compares answers with the true intents."""

    def __init__(self, stack: Stack, intents: Mapping[str, str]) -> None:
        self.tenant = next(iter(stack.keys))
        self._stack = stack
        self._intents = intents

    async def send(self, texts: Sequence[str], namespace: str, callers: int) -> Tally:
        """Send texts in order from so many callers at a time."""
        tally = Tally()
        waiting = iter(texts)

        async def caller() -> None:
            for text in waiting:
                await self._send_one(text, namespace, tally)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return tally

    async def _send_one(self, text: str, namespace: str, tally: Tally) -> None:
        cache = router_pb2.CachePolicy(namespace=namespace)
        request = router_pb2.GenerateRequest(
            options=router_pb2.CallOptions(model=MODEL, cache=cache)
        )
        request.task.messages.add(role=inference_pb2.ROLE_SYSTEM, content=SYSTEM_PROMPT)
        request.task.messages.add(role=inference_pb2.ROLE_USER, content=text)
        metadata = self._stack.metadata(self.tenant)
        answer = await self._stack.router.Generate(
            request, metadata=metadata, timeout=CALL_TIMEOUT_S
        )
        receipt = answer.receipt
        outcome = common_pb2.CacheOutcome.Name(receipt.cache.outcome)
        outcome = outcome.removeprefix("CACHE_OUTCOME_")
        intent = json.loads(answer.result.message.content)["intent"]
        tally.outcomes[outcome] += 1
        tally.paid_microusd += receipt.cost.paid_microusd
        tally.full_price_microusd += receipt.cost.full_price_microusd
        tally.wrong += outcome == "SEMANTIC_HIT" and intent != self._intents[text]


def _table(different: Tally, same: Tally, repeated: Tally, later_calls: int) -> Table:
    table = Table(
        "",
        *SHOWN_OUTCOMES.values(),
        title=f"{different.wrong} wrong answers; the last two rows made {later_calls} model calls",
    )
    rows = {
        f"{DIFFERENT_TEXTS} different texts": different,
        f"one text {SAME_TEXTS} times at once": same,
        f"{REPEATED_TEXTS} of the first texts again": repeated,
    }
    for name, tally in rows.items():
        table.add_row(name, *(f"{tally.outcomes[outcome]}" for outcome in SHOWN_OUTCOMES))
    return table
