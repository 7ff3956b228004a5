"""A stale answer is served at once, and one call of its own fetches the new one, whatever becomes
of it.
"""

from __future__ import annotations

from typing import Any

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.settings import RouterSettings
from penstock.router.stages import Deferred, Hit, LookUp, Miss, NoLookUp
from penstock.rpc.call import Call
from penstock.rpc.errors import unavailable
from penstock.testkit.chats import chat
from penstock.testkit.instance import EmptyInstance

from ..routed import StartRouter

STALE = "exact: stale"

MODEL = "m"
PRICES = {
    MODEL: ModelPrice(
        name=MODEL, input_microusd_per_mtok=1_000_000, output_microusd_per_mtok=1_000_000
    )
}


class OneStaleAnswer(NoLookUp):
    """A look-up that has one stale answer, for which a new one is owed."""

    def __init__(self) -> None:
        self.stored: list[tuple[object, str]] = []
        """Tickets and the revision of what came for them; empty where nothing came."""

    async def look_up(self, call: Call, request: ResolvedRequest, request_id: str) -> LookUp:
        receipt = common_pb2.CacheReceipt(rule=STALE, outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT)
        return Hit(inference_pb2.TaskResult(revision="old"), receipt, refresh="owed")

    def store(
        self,
        ticket: object,
        result: inference_pb2.TaskResult | None,
        receipt: common_pb2.Receipt | None,
    ) -> Deferred:
        self.stored.append((ticket, result.revision if result is not None else ""))
        return None


class CostlyMiss(NoLookUp):
    """A look-up that finds nothing, and costs something."""

    async def look_up(self, call: Call, request: ResolvedRequest, request_id: str) -> LookUp:
        receipt = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_MISS, cost_microusd=3)
        saving = common_pb2.Saving(technique="semantic_cache", microusd=-3)
        return Miss("missed", receipt, savings=(saving,))


class Instance(EmptyInstance):
    """Answers with a new revision, or not."""

    def __init__(self) -> None:
        self.is_down = False
        self.calls: list[Call] = []

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls.append(call)
        if self.is_down:
            raise unavailable("no")
        result = inference_pb2.TaskResult(revision="new")
        result.usage.input_tokens = 1_000
        return inference_pb2.ComputeResponse(result=result)

    async def ComputeStream(self, request: object, call: Call) -> Any:
        raise AssertionError("a stale answer is in memory")
        yield


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stale_answer_is_served_and_a_call_outside_the_run_brings_the_new_one(
    start_router: StartRouter, streamed: bool
) -> None:
    look_up, instance = OneStaleAnswer(), Instance()
    options, task = pb.CallOptions(run_id="r1", step="s"), chat("hello").generate
    async with start_router(RouterSettings(default_model=MODEL), look_up=look_up) as routed:
        await routed.join("a", instance, MODEL)
        if streamed:
            request = pb.GenerateStreamRequest(task=task, options=options)
            stream = routed.stub.GenerateStream(request, metadata=routed.metadata)
            receipt = [item async for item in stream][-1].receipt
        else:
            request = pb.GenerateRequest(task=task, options=options)
            receipt = (await routed.stub.Generate(request, metadata=routed.metadata)).receipt
    assert (receipt.revision, receipt.cache.rule, receipt.cost.paid_microusd) == ("old", STALE, 0)
    assert look_up.stored == [("owed", "new")]
    (call,) = instance.calls
    assert (call.principal.organisation, call.run_id) == ("acme", "")


async def test_a_refresh_that_fails_fails_nobody_and_is_no_longer_owed(
    start_router: StartRouter,
) -> None:
    look_up, instance = OneStaleAnswer(), Instance()
    instance.is_down = True
    async with start_router(RouterSettings(default_model=MODEL), look_up=look_up) as routed:
        await routed.join("a", instance, MODEL)
        answer = await routed.stub.Generate(
            pb.GenerateRequest(task=chat("hello").generate), metadata=routed.metadata
        )
        assert answer.receipt.revision == "old"
    assert set(look_up.stored) == {("owed", "")}


async def test_what_asking_the_cache_cost_is_paid_and_the_rows_still_add_up(
    start_router: StartRouter,
) -> None:
    async with start_router(
        RouterSettings(default_model=MODEL), look_up=CostlyMiss(), prices=PRICES
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
