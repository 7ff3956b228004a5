"""Calls for a model that scales from zero wait for its first instance; others fail at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.router.settings import RouterSettings
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN

from ..rig import embed, fault_of
from ..routed import METADATA, Routed, StartRouter
from ..scripted import ScriptedInstance

AUTH = (("penstock-token", TOKEN),)
COLD = "cold"
"""A model that a scaler starts instances of."""


@pytest.fixture
async def routed(start_router: StartRouter) -> AsyncIterator[Routed]:
    async with start_router(RouterSettings()) as started:
        yield started


async def list_fleets(routed: Routed, *scaled: str) -> dict[str, tuple[int, int]]:
    """What a scaler of these models does at each tick: instances and waiting calls by model."""
    async with open_channel(routed.address) as channel:
        stub = router_pb2_grpc.RegistryServiceStub(channel)
        answer = await stub.ListFleets(pb.ListFleetsRequest(scaled=scaled), metadata=AUTH)
    return {row.model: (row.serving, row.waiting) for row in answer.fleets}


async def call(routed: Routed, timeout_s: float = 20.0, **options: object) -> pb.EmbedResponse:
    """A call for the cold model."""
    request = embed(model=COLD, **options)
    answer: pb.EmbedResponse = await routed.stub.Embed(
        request, metadata=METADATA, timeout=timeout_s
    )
    return answer


async def waiting(routed: Routed, count: int) -> None:
    """Returns when so many calls wait for the cold model."""
    await eventually(lambda: routed.registry.cold_starts.count(COLD) == count, every_s=0.001)


async def test_without_a_scaler_nobody_waits(routed: Routed) -> None:
    assert (await fault_of(call(routed))).reason is Reason.NO_MODEL


async def test_calls_wait_for_the_first_instance_and_the_scaler_is_told(routed: Routed) -> None:
    assert await list_fleets(routed, COLD) == {COLD: (0, 0)}
    calls = [asyncio.create_task(call(routed)) for _ in range(3)]
    await waiting(routed, 3)
    assert await list_fleets(routed, COLD) == {COLD: (0, 3)}
    await routed.join("first", ScriptedInstance(), COLD)
    answers = await asyncio.gather(*calls)
    assert [answer.receipt.route.instance_id for answer in answers] == ["first"] * 3
    assert all("waited for the first instance" in answer.receipt.notes for answer in answers)
    assert await list_fleets(routed, COLD) == {COLD: (1, 0)}


async def test_a_call_waits_where_all_instances_have_gone(routed: Routed) -> None:
    await list_fleets(routed, COLD)
    await routed.join("old", ScriptedInstance(), COLD)
    assert await routed.registry.drain("old", False) == 0
    begun = asyncio.create_task(call(routed))
    await waiting(routed, 1)
    await routed.join("new", ScriptedInstance(), COLD)
    assert (await begun).receipt.route.instance_id == "new"


async def test_a_caller_that_leaves_gives_up_its_place(routed: Routed) -> None:
    await list_fleets(routed, COLD)
    begun = asyncio.create_task(call(routed))
    await waiting(routed, 1)
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    await waiting(routed, 0)


async def test_a_call_waits_no_longer_than_its_deadline(routed: Routed) -> None:
    await list_fleets(routed, COLD)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await call(routed, timeout_s=0.05)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await waiting(routed, 0)


async def test_a_call_with_a_spare_model_is_not_kept_waiting(routed: Routed) -> None:
    await routed.join("warm", ScriptedInstance(), "warm")
    await list_fleets(routed, COLD)
    answer = await call(routed, fallback_models=["warm"])
    assert answer.receipt.route.instance_id == "warm"


@pytest.mark.parametrize(
    ("scaled", "why"), [(["m", ""], "has an empty name"), (["m"] * 1001, "has more than 1000")]
)
async def test_names_that_cannot_be_are_refused(
    routed: Routed, scaled: list[str], why: str
) -> None:
    fault = await fault_of(list_fleets(routed, *scaled))
    assert (fault.reason, fault.field) == (Reason.INVALID_ARGUMENT, "scaled")
    assert why in fault.message
