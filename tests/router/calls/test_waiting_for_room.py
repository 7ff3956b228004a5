"""Calls that late binding keeps in the router: in which order they go, and what becomes of them
when callers leave, instances come and the last one goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.routing.late_binding import MIN_ROUND_TRIPS, LateBinding
from penstock.router.routing.strategy import Answer
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import EmptyInstance

from ..rig import MODEL, embed, fault_of
from ..routed import Routed, StartRouter

LOW, HIGH = common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_HIGH
SETTINGS = RouterSettings(default_model=MODEL, strategy="late_binding")


@dataclass
class Gate(EmptyInstance):
    """An instance that answers once it is opened, and records what is there."""

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


@dataclass
class Rig:
    """A router that binds late, with one instance of one slot."""

    routed: Routed
    gate: Gate

    def begin(self, text: str, **options: object) -> asyncio.Task[pb.EmbedResponse]:
        """A call that goes on beside the test."""

        async def called() -> pb.EmbedResponse:
            answer: pb.EmbedResponse = await self.routed.stub.Embed(
                embed(text, **options), metadata=self.routed.metadata, timeout=20
            )
            return answer

        return asyncio.create_task(called())

    async def begin_first(self) -> asyncio.Task[pb.EmbedResponse]:
        """The call that takes the only slot."""
        first = self.begin("first")
        await self.gate.entered.acquire()
        return first

    async def waiting(self, count: int) -> None:
        """Returns when so many calls wait in the router."""
        await eventually(lambda: self.routed.selection.waiting(MODEL) == count, every_s=0.001)


@pytest.fixture
async def rig(start_router: StartRouter) -> AsyncIterator[Rig]:
    gate = Gate()
    async with start_router(SETTINGS) as routed:
        await routed.join("one", gate, MODEL, concurrency=1)
        measure(routed)
        yield Rig(routed, gate)


def measure(routed: Routed) -> None:
    """Let the router have measured that round trips are short against the service time."""
    fleet, strategy = routed.registry.fleets[MODEL], routed.registry.strategies[MODEL]
    fleet.service_s = 1.0
    for _ in range(MIN_ROUND_TRIPS):
        strategy.answered(fleet.members[0], fleet, Answer(0.0, 1.0, away_s=0.0))


async def test_no_more_is_sent_than_there_are_slots_and_the_urgent_go_first(rig: Rig) -> None:
    first = await rig.begin_first()
    low = rig.begin("low", priority=LOW)
    await rig.waiting(1)
    high = rig.begin("high", priority=HIGH)
    await rig.waiting(2)
    assert rig.gate.inside == ["first"]
    rig.gate.open.set()
    answers = await asyncio.gather(first, low, high)
    assert rig.gate.seen == ["first", "high", "low"]
    assert [answer.receipt.route.reason for answer in answers] == (
        ["late_binding: free and fastest"] * 3
    )
    assert rig.routed.selection.branches["all busy: waits in the router"] >= 2


async def test_a_caller_that_leaves_holds_nobody_up(rig: Rig) -> None:
    first = await rig.begin_first()
    gone, other = rig.begin("gone"), rig.begin("other")
    await rig.waiting(2)
    gone.cancel()
    await rig.waiting(1)
    rig.gate.open.set()
    await asyncio.gather(first, other)
    assert rig.gate.seen == ["first", "other"]


async def test_an_instance_that_comes_takes_from_what_waits(rig: Rig) -> None:
    first = await rig.begin_first()
    waiting = [rig.begin(f"w{number}") for number in range(4)]
    await rig.waiting(4)
    newcomer = Gate()
    await rig.routed.join("two", newcomer, MODEL, concurrency=3)
    rig.gate.open.set()
    await asyncio.gather(first, *(newcomer.entered.acquire() for _ in range(2)))
    newcomer.open.set()
    await asyncio.gather(*waiting)


async def test_when_the_last_instance_goes_all_who_wait_are_told(rig: Rig) -> None:
    first = await rig.begin_first()
    waiting = [asyncio.ensure_future(fault_of(rig.begin(f"w{number}"))) for number in range(3)]
    await rig.waiting(3)
    await rig.routed.registry.drain("one", False)
    rig.gate.open.set()
    await first
    faults = await asyncio.gather(*waiting)
    assert [fault.reason for fault in faults] == [Reason.NO_INSTANCE] * 3


async def test_what_would_wait_too_long_in_the_router_is_refused_by_class(rig: Rig) -> None:
    rig.routed.registry.fleets[MODEL].service_s = 15.0
    first = await rig.begin_first()
    fault = await fault_of(rig.begin("low", priority=LOW))
    assert fault.reason is Reason.SHED
    assert fault.message == "shed: the queue is longer than this priority may join"
    high = rig.begin("high", priority=HIGH)
    await rig.waiting(1)
    rig.gate.open.set()
    await asyncio.gather(first, high)


async def test_a_turn_that_a_call_cannot_use_goes_to_the_next(rig: Rig) -> None:
    first = await rig.begin_first()
    rig.routed.registry.registered["one"].capabilities.append("vision")
    picky = rig.begin("picky", required_capabilities=["vision"], priority=HIGH)
    await rig.waiting(1)
    other = rig.begin("other")
    await rig.waiting(2)
    newcomer = Gate()
    await rig.routed.join("two", newcomer, MODEL, concurrency=1)
    with rig.routed.occupied("one", requests=5):
        rig.gate.open.set()
        await first
        await newcomer.entered.acquire()
        assert newcomer.seen == ["other"], "the more urgent call needs what the newcomer lacks"
        newcomer.open.set()
        await other
    rig.routed.selection.room_at(MODEL)
    await picky
    assert rig.gate.seen == ["first", "picky"]


async def test_round_trips_are_measured_by_answers_and_until_then_the_default_decides(
    start_router: StartRouter,
) -> None:
    gate = Gate()
    gate.open.set()
    async with start_router(SETTINGS) as routed:
        await routed.join("one", gate, MODEL, concurrency=1)
        rig = Rig(routed, gate)
        reasons = [(await rig.begin("x")).receipt.route.reason for _ in range(MIN_ROUND_TRIPS + 1)]
        strategy = routed.registry.strategies[MODEL]
        assert isinstance(strategy, LateBinding)
        assert strategy.round_trip_s == 0.0, "the instance says that all of the time was its own"
    assert set(reasons[:-1]) == {"late_binding: late binding does not fit: lowest score"}
    assert reasons[-1] == "late_binding: free and fastest"
