"""Late binding: where it fits, how wide it reaches, and how calls are held over a real router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.routing.fleet import LEAST_ROUND_TRIPS, ROUND_TRIPS, Fleet
from penstock.router.routing.late_binding_queue import Holding
from penstock.router.routing.strategies import LateBinding
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call

MODEL = "m"
LOW, NORMAL, HIGH = common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_NORMAL, common_pb2.PRIORITY_HIGH


def measured(round_trip_s: float, routers: int = 1) -> Fleet:
    fleet = Fleet(service_s=0.1, routers=routers)
    for _ in range(LEAST_ROUND_TRIPS):
        fleet.went(round_trip_s)
    return fleet


@pytest.mark.parametrize(
    ("fleet", "fits"),
    [
        (measured(0.004), True),
        (measured(0.006), False),
        (measured(0.004, routers=2), False),
        (Fleet(service_s=0.1), False),
    ],
)
def test_it_serves_one_router_over_a_short_way_that_has_been_measured(
    fleet: Fleet, fits: bool
) -> None:
    assert LateBinding().fits(fleet) is fits


def test_the_way_is_the_least_of_the_latest_answers() -> None:
    fleet = Fleet()
    for took_s in (0.5, 0.002, *[0.3] * (LEAST_ROUND_TRIPS - 2)):
        fleet.went(took_s)
    assert fleet.round_trip_s == 0.002
    for _ in range(ROUND_TRIPS):
        fleet.went(0.3)
    assert fleet.round_trip_s == 0.3, "a way that has become longer is seen"
    fleet.went(-0.1)
    assert fleet.round_trip_s == 0.0


async def test_the_urgent_are_woken_first_and_who_was_woken_in_vain_keeps_its_rank() -> None:
    holding, order = Holding(), list[str]()

    async def held(name: str, rank: tuple[int, int]) -> None:
        await holding.wait(MODEL, rank)
        order.append(name)

    ranks = {
        name: holding.rank(priority)
        for name, priority in (("low", LOW), ("a", NORMAL), ("b", NORMAL), ("high", HIGH))
    }
    tasks = {name: asyncio.create_task(held(name, rank)) for name, rank in ranks.items()}
    await asyncio.sleep(0)
    assert holding.count(MODEL) == 4
    holding.wake(MODEL)
    await tasks["high"]
    again = asyncio.create_task(held("a again", ranks["a"]))
    tasks["a"].cancel()
    await asyncio.sleep(0)
    for _ in range(3):
        holding.wake(MODEL)
    await asyncio.gather(again, tasks["b"], tasks["low"])
    assert order == ["high", "a again", "b", "low"]
    assert holding.count(MODEL) == 0
    holding.wake(MODEL)


async def test_a_turn_that_is_not_used_goes_to_the_next() -> None:
    holding = Holding()
    first, second = (
        asyncio.create_task(holding.wait(MODEL, holding.rank(NORMAL))) for _ in range(2)
    )
    await asyncio.sleep(0)
    holding.wake(MODEL)
    first.cancel()
    await asyncio.wait_for(second, 5)


@dataclass
class Gate:
    """An instance that answers when it is let; counts what is there at once."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    inside: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    entered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        text = request.task.embed.texts[0]
        self.inside.append(text)
        self.seen.append(text)
        self.entered.release()
        await self.open.wait()
        self.inside.remove(text)
        result = inference_pb2.TaskResult(compute_ms=1000.0, revision="1")
        result.embed.embeddings.add(values=[1.0])
        return inference_pb2.ComputeResponse(result=result)

    ComputeStream = ComputeBatch = ListModels = LoadModel = UnloadModel = Compute


@dataclass
class Rig:
    """A router that binds late, with one instance of one slot."""

    routed: Any
    gate: Gate

    def ask(self, text: str, **options: object) -> asyncio.Task[pb.EmbedResponse]:
        request = pb.EmbedRequest(texts=[text], options=pb.CallOptions(**options))  # type: ignore[arg-type]
        answer = self.routed.stub.Embed(request, metadata=self.routed.metadata, timeout=20)
        return asyncio.ensure_future(_whole(answer))

    async def held(self, count: int) -> None:
        while self.routed.attempts._holding.count(MODEL) != count:
            await asyncio.sleep(0.001)


async def _whole(answer: Any) -> pb.EmbedResponse:
    whole: pb.EmbedResponse = await answer
    return whole


@pytest.fixture
async def rig(start_router: Callable[..., Any]) -> AsyncIterator[Rig]:
    gate = Gate()
    async with (
        start_router(RouterSettings(default_model=MODEL, strategy="late_binding")) as routed,
        asyncio.timeout(30),
    ):
        await routed.join("one", gate, MODEL, concurrency=1)
        fleet = routed.registry.fleets[MODEL]
        fleet.service_s = 1.0
        for _ in range(LEAST_ROUND_TRIPS):
            fleet.went(0.0)
        yield Rig(routed, gate)


async def test_no_more_is_sent_than_there_are_slots_and_the_urgent_go_first(rig: Rig) -> None:
    first = rig.ask("first")
    await rig.gate.entered.acquire()
    waiting = [rig.ask("low", priority=LOW)]
    await rig.held(1)
    waiting.append(rig.ask("high", priority=HIGH))
    await rig.held(2)
    assert rig.gate.inside == ["first"]
    rig.gate.open.set()
    answers = await asyncio.gather(first, *waiting)
    assert rig.gate.seen == ["first", "high", "low"]
    assert answers[0].receipt.route.reason == "late_binding: free and fastest"


async def test_a_caller_that_leaves_holds_nobody_up(rig: Rig) -> None:
    first = rig.ask("first")
    await rig.gate.entered.acquire()
    gone, other = rig.ask("gone"), rig.ask("other")
    await rig.held(2)
    gone.cancel()
    await rig.held(1)
    rig.gate.open.set()
    await asyncio.gather(first, other)
    assert rig.gate.seen == ["first", "other"]


async def test_a_newcomer_takes_from_what_is_held(rig: Rig) -> None:
    first = rig.ask("first")
    await rig.gate.entered.acquire()
    waiting = [rig.ask(f"w{number}") for number in range(4)]
    await rig.held(4)
    newcomer = Gate()
    await rig.routed.join("two", newcomer, MODEL, concurrency=3)
    rig.gate.open.set()
    await asyncio.gather(first, *(newcomer.entered.acquire() for _ in range(2)))
    newcomer.open.set()
    await asyncio.gather(*waiting)


async def test_when_the_last_instance_goes_all_that_is_held_is_told(rig: Rig) -> None:
    first = rig.ask("first")
    await rig.gate.entered.acquire()
    waiting = [rig.ask(f"w{number}") for number in range(3)]
    await rig.held(3)
    await rig.routed.registry.drain("one", False)
    rig.gate.open.set()
    await first
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(item, grpc.aio.AioRpcError) for item in outcomes)
    assert {item.code() for item in outcomes} == {grpc.StatusCode.UNAVAILABLE}  # type: ignore[union-attr]


async def test_what_is_held_is_shed_by_class_too(rig: Rig) -> None:
    rig.routed.registry.fleets[MODEL].service_s = 15.0
    first = rig.ask("first")
    await rig.gate.entered.acquire()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask("low", priority=LOW)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    high = rig.ask("high", priority=HIGH)
    await rig.held(1)
    rig.gate.open.set()
    await asyncio.gather(first, high)


async def test_the_way_is_measured_by_answers_and_until_then_the_default_decides(
    start_router: Callable[..., Any],
) -> None:
    gate = Gate()
    gate.open.set()
    async with start_router(RouterSettings(default_model=MODEL, strategy="late_binding")) as routed:
        await routed.join("one", gate, MODEL, concurrency=1)
        fleet = routed.registry.fleets[MODEL]
        reasons = []
        for _ in range(LEAST_ROUND_TRIPS + 1):
            answer = await routed.stub.Embed(pb.EmbedRequest(texts=["x"]), metadata=routed.metadata)
            reasons.append(answer.receipt.route.reason)
        assert fleet.round_trip_s == 0.0, "the instance says that all of the time was its own"
        assert set(reasons[:-1]) == {
            "late_binding: several routers, or the way is long or not known: lowest score"
        }
        assert reasons[-1] == "late_binding: free and fastest"
