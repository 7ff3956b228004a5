"""The queue of calls that wait in the router: order, turns that are passed on, places given up."""

from __future__ import annotations

import asyncio

from penstock.api.common.v1 import common_pb2
from penstock.router.routing.late_binding_queue import LateBindingQueue, Rank
from penstock.testkit.eventually import eventually

MODEL = "m"
LOW, NORMAL, HIGH = common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_NORMAL, common_pb2.PRIORITY_HIGH


class Waiting:
    """Calls that wait in a queue, and the order in which they were woken."""

    def __init__(self, queue: LateBindingQueue) -> None:
        self._queue = queue
        self.woken: list[str] = []

    async def begin(self, name: str, rank: Rank) -> asyncio.Task[None]:
        """A call that has its place in the queue when this returns."""
        before = self._queue.count(MODEL)
        task = asyncio.create_task(self._wait(name, rank))
        await eventually(lambda: self._queue.count(MODEL) == before + 1, every_s=0)
        return task

    async def _wait(self, name: str, rank: Rank) -> None:
        await self._queue.wait(MODEL, rank)
        self.woken.append(name)


async def test_the_more_urgent_class_goes_first_and_within_it_the_first_come() -> None:
    queue = LateBindingQueue()
    waiting = Waiting(queue)
    order = (("low", LOW), ("first", NORMAL), ("second", NORMAL), ("high", HIGH))
    ranks = [queue.rank(priority) for _, priority in order]
    calls = [
        await waiting.begin(name, rank)
        for (name, _), rank in reversed(list(zip(order, ranks, strict=True)))
    ]
    for _ in calls:
        queue.wake(MODEL)
    await asyncio.gather(*calls)
    assert waiting.woken == ["high", "first", "second", "low"]
    assert queue.count(MODEL) == 0


async def test_a_call_that_was_woken_in_vain_keeps_its_rank() -> None:
    queue = LateBindingQueue()
    waiting = Waiting(queue)
    early, late = queue.rank(NORMAL), queue.rank(NORMAL)
    first_try = await waiting.begin("early", early)
    queue.wake(MODEL)
    await first_try
    others = [await waiting.begin("late", late), await waiting.begin("early again", early)]
    queue.wake(MODEL)
    queue.wake(MODEL)
    await asyncio.gather(*others)
    assert waiting.woken == ["early", "early again", "late"]


async def test_whoever_cannot_use_its_turn_wakes_the_next_behind_it() -> None:
    queue = LateBindingQueue()
    waiting = Waiting(queue)
    ranks = [queue.rank(NORMAL) for _ in range(3)]
    calls = {
        name: await waiting.begin(name, rank)
        for name, rank in (("first", ranks[0]), ("third", ranks[2]))
    }
    queue.wake(MODEL, after=ranks[1])
    await calls["third"]
    assert waiting.woken == ["third"]
    queue.wake(MODEL, after=ranks[2])
    assert not calls["first"].done()
    queue.wake(MODEL)
    await calls["first"]


async def test_a_caller_that_leaves_gives_up_its_place() -> None:
    queue = LateBindingQueue()
    waiting = Waiting(queue)
    leaving = await waiting.begin("leaving", queue.rank(HIGH))
    staying = await waiting.begin("staying", queue.rank(LOW))
    leaving.cancel()
    await asyncio.wait([leaving])
    assert queue.count(MODEL) == 1
    queue.wake(MODEL)
    await staying


async def test_a_turn_that_was_given_to_a_caller_that_leaves_goes_to_the_next() -> None:
    queue = LateBindingQueue()
    waiting = Waiting(queue)
    leaving = await waiting.begin("leaving", queue.rank(NORMAL))
    next_one = await waiting.begin("next", queue.rank(NORMAL))
    queue.wake(MODEL)
    leaving.cancel()
    await asyncio.wait_for(next_one, 5)
    assert waiting.woken == ["next"]


async def test_models_are_queued_apart_and_waking_nobody_is_nothing() -> None:
    queue = LateBindingQueue()
    call = await Waiting(queue).begin("call", queue.rank(NORMAL))
    queue.wake("other")
    assert (queue.count("other"), queue.count(MODEL)) == (0, 1)
    queue.wake(MODEL)
    await call
    queue.wake(MODEL)
