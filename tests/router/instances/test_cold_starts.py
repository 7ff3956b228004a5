"""Calls for a model that scales from zero wait for its first instance; others fail at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import router_pb2_grpc
from penstock.router.instances import cold_start_queue as waiting
from penstock.router.instances.cold_start_queue import HEARD_S, WaitingRoom
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.clock import FakeClock
from penstock.testkit.instance import QuietInstance
from penstock.testkit.server import TOKEN

from .conftest import METADATA, Routed

AUTH = (("penstock-token", TOKEN),)


class Instance(QuietInstance):
    """Answers every embed task with one vector."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        result = inference_pb2.TaskResult(compute_ms=1.0)
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)


@pytest.fixture
async def routed(start_router: Callable[..., Any]) -> AsyncIterator[Routed]:
    async with start_router(RouterSettings(listen="127.0.0.1:0")) as found:
        yield found


def embed(**options: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=["x"], options=pb.CallOptions(model="cold", **options))


async def ask(routed: Routed, *scaled: str) -> dict[str, tuple[int, int]]:
    """What a scaler does at each tick."""
    async with open_channel(routed.address) as channel:
        stub = router_pb2_grpc.RegistryServiceStub(channel)
        answer = await stub.ListFleets(pb.ListFleetsRequest(scaled=scaled), metadata=AUTH)
    return {row.model: (row.serving, row.waiting) for row in answer.fleets}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0)


async def test_a_call_waits_for_the_first_instance_and_the_scaler_sees_it(routed: Routed) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await routed.stub.Embed(embed(), metadata=METADATA)
    assert await ask(routed, "cold") == {"cold": (0, 0)}
    calls = [asyncio.create_task(_answer(routed)) for _ in range(3)]
    await until(lambda: routed.registry.waiting.count("cold") == 3)
    assert await ask(routed, "cold") == {"cold": (0, 3)}
    await routed.join("first", Instance(), "cold")
    answers = await asyncio.gather(*calls)
    assert [one.receipt.route.instance_id for one in answers] == ["first"] * 3
    assert all("waited for the first instance" in one.receipt.notes for one in answers)
    assert await ask(routed, "cold") == {"cold": (1, 0)}


async def test_a_call_waits_where_all_instances_have_gone(routed: Routed) -> None:
    await ask(routed, "cold")
    await routed.join("old", Instance(), "cold")
    assert await routed.registry.drain("old", False) == 0
    call = asyncio.create_task(_answer(routed))
    await until(lambda: routed.registry.waiting.count("cold") == 1)
    await routed.join("new", Instance(), "cold")
    assert (await call).receipt.route.instance_id == "new"


async def test_a_caller_that_leaves_or_runs_out_of_time_leaves_no_place_behind(
    routed: Routed,
) -> None:
    await ask(routed, "cold")
    call = asyncio.create_task(_answer(routed))
    await until(lambda: routed.registry.waiting.count("cold") == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
        await routed.stub.Embed(embed(), metadata=METADATA, timeout=0.05)
    await until(lambda: routed.registry.waiting.count("cold") == 0)


async def test_a_fallback_is_not_kept_waiting(routed: Routed) -> None:
    await routed.join("warm", Instance(), "warm")
    await ask(routed, "cold")
    answer = await routed.stub.Embed(embed(fallback_models=["warm"]), metadata=METADATA)
    assert answer.receipt.route.instance_id == "warm"


async def test_nobody_waits_for_a_scaler_that_has_gone_silent_nor_in_a_crowd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock(100.0)
    room = WaitingRoom(clock)
    assert not await room.wait("cold")
    room.scaled(["cold"])
    monkeypatch.setattr(waiting, "MOST", 0)
    with pytest.raises(Fault, match="wait for the first instance"):
        await room.wait("cold")
    await clock.advance(HEARD_S + 1.0)
    assert not room.opens("cold") and not await room.wait("cold")


async def test_a_name_that_is_empty_is_refused(routed: Routed) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="scaled"):
        await ask(routed, "")


async def _answer(routed: Routed) -> pb.EmbedResponse:
    answer: pb.EmbedResponse = await routed.stub.Embed(embed(), metadata=METADATA, timeout=10)
    return answer
