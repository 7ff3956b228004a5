"""Three times what an instance can do, in an open loop and virtual time: what is served, and whom.

The instance runs one batch at a time and takes as long for each of its members. A call is served
where its answer comes within its deadline, which its caller knows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from random import Random

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.instance_profile import FixedLimit
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import (
    HIGH,
    LOW,
    NORMAL,
    InstanceResult,
    OneResult,
    PendingRequest,
    TaskSize,
)
from penstock.batcher.settings import BatchingSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import OK, Fault
from penstock.simulation.virtual_loop import VirtualClock, run_virtual

TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
SIZE = TaskSize(rows=1, tokens=10)
PER_S, FACTOR, SECONDS, DEADLINE_S = 50.0, 3.0, 30.0, 1.0
SHARES = {LOW: 0.5, NORMAL: 0.3, HIGH: 0.2}
Served = Counter[tuple[int, str]]


class SleepingInstance:
    """Takes 1 / PER_S for each member of a batch."""

    async def run_one(self, request: PendingRequest) -> OneResult:
        await asyncio.sleep(1 / PER_S)
        return OneResult(inference_pb2.TaskResult(), common_pb2.LoadReport(concurrency=1))

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        for index in range(len(requests)):
            await asyncio.sleep(1 / PER_S)
            result = inference_pb2.MemberResult(index=index, status=OK)
            yield index, result, common_pb2.LoadReport(concurrency=1)


async def overloaded(shares: dict[tuple[int, str], float]) -> tuple[Served, Served]:
    """What was sent and what was served, by priority and tenant."""
    clock, rng = VirtualClock(asyncio.get_running_loop()), Random(1)
    knobs = KnobTable(BatchingSection())
    queue = InstanceQueue(SleepingInstance(), FixedLimit(1), knobs, clock)
    sent, served = Served(), Served()

    async def call(priority: int, tenant: str) -> None:
        caller = Call(Principal(tenant), priority, deadline_s=clock.monotonic() + DEADLINE_S)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await queue.submit(TASK, "m", caller, SIZE)
        except (Fault, TimeoutError):
            return
        served[priority, tenant] += 1

    async with asyncio.TaskGroup() as calls:
        while clock.monotonic() < SECONDS:
            await asyncio.sleep(rng.expovariate(FACTOR * PER_S))
            (flow,) = rng.choices(list(shares), list(shares.values()))
            sent[flow] += 1
            calls.create_task(call(*flow))
    queue.close()
    return sent, served


def test_the_urgent_are_served_and_the_low_class_is_shed_first() -> None:
    by_flow = {(priority, "a"): share for priority, share in SHARES.items()}
    sent, served = run_virtual(overloaded(by_flow))
    low, normal, high = (served[flow] / sent[flow] for flow in by_flow)
    assert high > 0.95, "the high class alone is 0.6 of what the instance can do"
    assert low < normal < high
    assert served.total() >= 0.9 * PER_S * SECONDS


def test_a_tenant_that_sends_its_share_is_served_beside_one_that_floods() -> None:
    by_flow = {(NORMAL, "loud"): 0.9, (NORMAL, "quiet"): 0.1}
    sent, served = run_virtual(overloaded(by_flow))
    assert served[NORMAL, "quiet"] > 0.9 * sent[NORMAL, "quiet"]
    assert served.total() >= 0.9 * PER_S * SECONDS
