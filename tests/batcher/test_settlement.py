"""Each request ends exactly once, whatever happens: random arrivals, cancels, deadlines and losses
of the instance, in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.instance_profile import FixedLimit
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import (
    Answer,
    InstanceResult,
    OneResult,
    PendingRequest,
    TaskSize,
)
from penstock.batcher.settings import BatchingSection, KnobsSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import OK, Fault, unavailable
from penstock.testkit.clock import FakeClock

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
SIZE = TaskSize(rows=1, tokens=5)
KNOBS = KnobsSection(max_batch_size=3, max_queue_size=12)
Step = tuple[str, int, int, float]
"""Operation, priority or count, tenant, seconds to the deadline."""
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.integers(1, 4),
            st.integers(0, 3),
            st.sampled_from([0.05, 1.0, 60.0]),
        ),
        st.tuples(st.just("stream"), st.integers(1, 4), st.integers(0, 3), st.just(60.0)),
        st.tuples(st.just("cancel"), st.integers(0, 50), st.just(0), st.just(0.0)),
        st.tuples(st.just("advance"), st.integers(1, 30), st.just(0), st.just(0.0)),
        st.tuples(st.just("lose instance"), st.just(0), st.just(0), st.just(0.0)),
    ),
    max_size=40,
)


class LosableInstance:
    """Takes 10 ms a batch. When it is lost, batches that run end after some of their results."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.losses = 0
        self.answered: list[int] = []

    async def run_one(self, request: PendingRequest) -> OneResult:
        await self._clock.sleep(0.010)
        self.answered.append(request.item.id)
        return OneResult(inference_pb2.TaskResult(), common_pb2.LoadReport())

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        losses_before = self.losses
        await self._clock.sleep(0.010)
        for index, request in enumerate(requests):
            if self.losses != losses_before and index % 2:
                raise unavailable("the instance died")
            self.answered.append(request.item.id)
            yield index, inference_pb2.MemberResult(index=index, status=OK), common_pb2.LoadReport()


class Scenario:
    """A queue before a losable instance, and the callers that were started."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.instance = LosableInstance(self.clock)
        knobs = KnobTable(BatchingSection(default=KNOBS))
        self.queue = InstanceQueue(self.instance, FixedLimit(2), knobs, self.clock)
        self.callers: list[asyncio.Task[object]] = []

    async def perform(self, step: Step) -> None:
        operation, number, tenant, seconds = step
        deadline_s = self.clock.monotonic() + seconds
        call = Call(Principal(str(tenant)), number, deadline_s=deadline_s)
        if operation == "submit":
            submission = self.queue.submit(TASK, "m", call, SIZE)
            self.callers.append(asyncio.ensure_future(submission))
        elif operation == "stream":
            self.callers.append(asyncio.ensure_future(self._stream(call)))
        elif operation == "cancel" and self.callers:
            self.callers[number % len(self.callers)].cancel()
        elif operation == "advance":
            await self.clock.advance(number / 1000)
        elif operation == "lose instance":
            self.instance.losses += 1

    async def _stream(self, call: Call) -> object:
        async with self.queue.stream_slot(TASK, "m", call, SIZE) as receipt:
            await self.clock.sleep(0.02)
            return receipt


async def check_that_each_ends_once(steps: list[Step]) -> None:
    scenario = Scenario()
    queue, clock = scenario.queue, scenario.clock
    for step in steps:
        await scenario.perform(step)
    await clock.advance(0)
    returned = queue.close()
    await clock.advance(5.0)
    await queue.wait_idle()
    outcomes = await asyncio.gather(*scenario.callers, return_exceptions=True)
    ends = Answer | Fault | asyncio.CancelledError | common_pb2.BatchReceipt
    assert all(isinstance(outcome, ends) for outcome in outcomes)
    answered = scenario.instance.answered
    assert len(answered) == len(set(answered)), "a request was answered twice"
    assert returned <= len(scenario.callers)
    assert (len(queue.waiting), queue.running) == (0, 0)
    assert (queue.in_flight, queue.in_flight_tokens) == (0, 0)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_each_request_ends_exactly_once(steps: list[Step]) -> None:
    asyncio.run(check_that_each_ends_once(steps))
