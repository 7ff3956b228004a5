"""Whatever happens, each member ends exactly once: random arrivals, cancels, deadlines and deaths
of the instance, in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue import Answer, InstanceQueue, PendingRequest
from penstock.batcher.settings import KnobsSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import OK, Fault, unavailable
from penstock.testkit.clock import FakeClock

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
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
        st.tuples(st.just("die"), st.just(0), st.just(0), st.just(0.0)),
    ),
    max_size=40,
)


class Mortal:
    """Takes 10 ms a batch; told to die, it loses the batches that run."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.deaths = 0
        self.answered: list[int] = []

    async def run(
        self, model: str, members: Sequence[PendingRequest]
    ) -> AsyncIterator[tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]]:
        alive = self.deaths
        await self._clock.sleep(0.010)
        for index, member in enumerate(members):
            if self.deaths != alive and index % 2:
                raise unavailable("the instance died")
            self.answered.append(member.entry.id)
            yield index, inference_pb2.MemberResult(index=index, status=OK), common_pb2.LoadReport()


async def play(steps: list[tuple[str, int, int, float]]) -> None:
    clock = FakeClock()
    instance = Mortal(clock)
    queue = InstanceQueue(
        instance, 2, {"": KnobsSection(max_batch_size=3, max_queue_size=12)}, clock
    )
    tasks: list[asyncio.Task[object]] = []

    async def stream(call: Call) -> object:
        async with queue.stream_slot(TASK, "m", call, (1, 5)) as receipt:
            await clock.sleep(0.02)
            return receipt

    for what, first, tenant, seconds in steps:
        call = Call(Principal(str(tenant)), first, deadline_s=clock.monotonic() + seconds)
        if what == "submit":
            tasks.append(asyncio.ensure_future(queue.submit(TASK, "m", call, (1, 5))))
        elif what == "stream":
            tasks.append(asyncio.ensure_future(stream(call)))
        elif what == "cancel" and tasks:
            tasks[first % len(tasks)].cancel()
        elif what == "advance":
            await clock.advance(first / 1000)
        elif what == "die":
            instance.deaths += 1
    await clock.advance(0)
    returned = queue.close()
    await clock.advance(5.0)
    await queue.wait_idle()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        isinstance(item, Answer | Fault | asyncio.CancelledError | common_pb2.BatchReceipt)
        for item in outcomes
    )
    assert len(instance.answered) == len(set(instance.answered)), "a member was answered twice"
    assert returned <= len(tasks)
    assert len(queue.waiting) == 0
    assert queue.running == 0
    assert queue._members == {}
    assert all(count == 0 for count in queue._tokens.values())


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_each_member_ends_exactly_once(steps: list[tuple[str, int, int, float]]) -> None:
    asyncio.run(play(steps))
