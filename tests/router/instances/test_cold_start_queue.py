"""The queue for the first instance of a model: when it is open, and who waits in it."""

from __future__ import annotations

import asyncio

import pytest
from penstock.router.instances import cold_start_queue as module
from penstock.router.instances.cold_start_queue import SCALER_MEMORY_S, ColdStartQueue
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.testkit.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def queue(clock: FakeClock) -> ColdStartQueue:
    return ColdStartQueue(clock)


async def test_nobody_waits_for_a_model_that_no_scaler_looks_after(queue: ColdStartQueue) -> None:
    queue.set_scaled(["cold"])
    assert (queue.is_open("cold"), queue.is_open("other")) == (True, False)
    assert not await queue.wait("other")


async def test_a_scaler_that_has_fallen_silent_starts_nothing_any_more(
    queue: ColdStartQueue, clock: FakeClock
) -> None:
    queue.set_scaled(["cold"])
    await clock.advance(SCALER_MEMORY_S)
    assert queue.is_open("cold")
    await clock.advance(0.1)
    assert not queue.is_open("cold")
    assert not await queue.wait("cold")


async def test_each_time_that_a_scaler_asks_keeps_the_queue_open(
    queue: ColdStartQueue, clock: FakeClock
) -> None:
    queue.set_scaled(["cold", "dropped"])
    await clock.advance(20.0)
    queue.set_scaled(["cold"])
    assert queue.scaled_for_s() == {"cold": SCALER_MEMORY_S, "dropped": SCALER_MEMORY_S - 20.0}
    await clock.advance(20.0)
    assert (queue.is_open("cold"), queue.is_open("dropped")) == (True, False)
    assert queue.scaled_for_s() == {"cold": SCALER_MEMORY_S - 20.0}


async def test_an_instance_wakes_all_who_wait_for_one_of_its_models(
    queue: ColdStartQueue, clock: FakeClock
) -> None:
    queue.set_scaled(["cold", "other"])
    waiting = [asyncio.create_task(queue.wait(model)) for model in ("cold", "cold", "other")]
    await clock.advance(0.0)
    assert queue.waiting_here() == {"cold": 2, "other": 1}
    queue.arrived(["cold"])
    await clock.advance(0.0)
    assert [task.done() for task in waiting] == [True, True, False]
    assert await waiting[0]
    assert queue.waiting_here() == {"other": 1}
    waiting[2].cancel()
    await asyncio.wait(waiting)
    assert queue.waiting_here() == {}


async def test_only_so_many_calls_wait_for_one_model(
    queue: ColdStartQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    queue.set_scaled(["cold"])
    with pytest.raises(Fault, match="wait for the first instance of 'cold'") as refused:
        await queue.wait("cold")
    assert refused.value.reason is Reason.SHED
    assert refused.value.retry_after_s > 0


async def test_what_other_routers_say_opens_the_queue_for_its_time(
    queue: ColdStartQueue, clock: FakeClock
) -> None:
    queue.learn_of_others({"cold": 5.0}, {"cold": 2})
    assert queue.is_open("cold")
    assert queue.count("cold") == 2
    assert queue.scaled_for_s() == {}, "what another said is not passed on as this one's own"
    await clock.advance(5.0)
    assert not queue.is_open("cold")


async def test_calls_of_routers_that_cannot_be_asked_count_no_more(queue: ColdStartQueue) -> None:
    queue.learn_of_others({"cold": 5.0}, {"cold": 2})
    queue.forget_others()
    assert queue.count("cold") == 0
    assert queue.is_open("cold"), "the scaler is still there"
