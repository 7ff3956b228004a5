"""A stale answer is served at once, and one call of its own fetches the new one, whatever becomes
of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice
from penstock.router.settings import RouterSettings
from penstock.router.stages import Found, Later, NoRecall, NotFound
from penstock.rpc.call import Call
from penstock.rpc.errors import unavailable
from penstock.tasks.answer_keys import STALE
from penstock.testkit.chats import chat
from penstock.testkit.instance import QuietInstance

MODEL = "m"
PRICES = {
    MODEL: ModelPrice(
        name=MODEL, input_microusd_per_mtok=1_000_000, output_microusd_per_mtok=1_000_000
    )
}


class OneStale(NoRecall):
    """Has one stale answer, and notes what is stored for it.

    `rule` and `cost` are of the receipts.
    """

    def __init__(self, found: bool = True, cost: int = 0) -> None:
        self.found, self.cost = found, cost
        self.stored: list[tuple[object, str, int]] = []

    async def look_up(
        self,
        call: Call,
        options: pb.CallOptions,
        task: inference_pb2.Task,
        model: str,
        request_id: str,
    ) -> Found | NotFound:
        receipt = common_pb2.CacheReceipt(rule=STALE, outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT)
        if self.found:
            return Found(
                inference_pb2.TaskResult(revision="old"), receipt, refresh=NotFound("owed")
            )
        receipt = common_pb2.CacheReceipt(
            outcome=common_pb2.CACHE_OUTCOME_MISS, cost_microusd=self.cost
        )
        saving = common_pb2.Saving(technique="semantic_cache", microusd=-self.cost)
        return NotFound("missed", receipt, savings=(saving,))

    def store(
        self,
        token: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Later:
        self.stored.append(
            (token, result.revision if result else "", receipt.cost.paid_microusd if receipt else 0)
        )
        return None


class Instance(QuietInstance):
    """Answers with a new revision, or not."""

    def __init__(self) -> None:
        self.down = False
        self.calls: list[Call] = []

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls.append(call)
        if self.down:
            raise unavailable("no")
        result = inference_pb2.TaskResult(revision="new")
        result.usage.input_tokens = 1_000
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeStream(self, request: object, call: Call) -> Any:
        raise AssertionError("a stale answer is in memory")
        yield


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stale_answer_is_served_and_a_call_outside_the_run_brings_the_new_one(
    start_router: Callable[..., Any], streamed: bool
) -> None:
    recall, instance = OneStale(), Instance()
    options, task = pb.CallOptions(run_id="r1", step="s"), chat("hello").generate
    async with start_router(RouterSettings(default_model=MODEL), recall=recall) as routed:
        await routed.join("a", instance, MODEL)
        if streamed:
            request = pb.GenerateStreamRequest(task=task, options=options)
            stream = routed.stub.GenerateStream(request, metadata=routed.metadata)
            receipt = [item async for item in stream][-1].receipt
        else:
            request = pb.GenerateRequest(task=task, options=options)
            receipt = (await routed.stub.Generate(request, metadata=routed.metadata)).receipt
    assert (receipt.revision, receipt.cache.rule, receipt.cost.paid_microusd) == ("old", STALE, 0)
    assert [(token, revision) for token, revision, _ in recall.stored] == [("owed", "new")]
    (call,) = instance.calls
    assert (call.principal.organisation, call.run_id) == ("acme", "")


async def test_a_refresh_that_fails_is_nobodys_failure_and_is_no_longer_owed(
    start_router: Callable[..., Any],
) -> None:
    recall, instance = OneStale(), Instance()
    instance.down = True
    async with start_router(RouterSettings(default_model=MODEL), recall=recall) as routed:
        await routed.join("a", instance, MODEL)
        answer = await routed.stub.Generate(
            pb.GenerateRequest(task=chat("hello").generate), metadata=routed.metadata
        )
        assert answer.receipt.revision == "old"
    assert {(token, revision) for token, revision, _ in recall.stored} == {("owed", "")}


async def test_what_asking_the_cache_cost_is_paid_and_the_rows_still_add_up(
    start_router: Callable[..., Any],
) -> None:
    recall = OneStale(found=False, cost=3)
    async with start_router(
        RouterSettings(default_model=MODEL), recall=recall, prices=PRICES
    ) as routed:
        await routed.join("a", Instance(), MODEL)
        answer = await routed.stub.Generate(
            pb.GenerateRequest(task=chat("hello").generate), metadata=routed.metadata
        )
    cost = answer.receipt.cost
    assert (cost.paid_microusd, cost.full_price_microusd, cost.saved_microusd) == (1_003, 1_000, -3)
    assert [(one.technique, one.microusd) for one in answer.receipt.savings] == [
        ("semantic_cache", -3)
    ]
