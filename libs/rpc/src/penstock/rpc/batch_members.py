"""The members of a `ComputeBatch` request, each served as a call of its own.

A batch is one message, but its members have different callers: each has its own deadline, trace and
fate. A member that fails or runs out of time is answered by its own status and spoils no other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import OK, deadline_exceeded, to_item_status
from penstock.service.clock import Clock

Compute = Callable[[inference_pb2.Task, Call], Awaitable[inference_pb2.TaskResult]]
"""Computes one member's task for its own caller."""


async def serve_members(
    members: Sequence[inference_pb2.BatchMember], compute: Compute, clock: Clock
) -> AsyncGenerator[inference_pb2.MemberResult, None]:
    """Compute all members at once and yield the result of each as soon as it is ready.

    Every member gets a result: what `compute` returned, or the status of what it raised, or
    DEADLINE_EXCEEDED where the member's own deadline passed. A member whose deadline has passed
    already is not computed. Closing the generator cancels the members that still run.
    """
    now = clock.monotonic()
    tasks = [
        asyncio.create_task(
            _serve(index, member.task, Call.from_context(member.context, now), compute, clock)
        )
        for index, member in enumerate(members)
    ]
    try:
        for ready in asyncio.as_completed(tasks):
            yield await ready
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    index: int, task: inference_pb2.Task, call: Call, compute: Compute, clock: Clock
) -> inference_pb2.MemberResult:
    try:
        result = await _within_deadline(task, call, compute, clock)
    except Exception as error:
        return inference_pb2.MemberResult(index=index, status=to_item_status(error))
    return inference_pb2.MemberResult(index=index, status=OK, result=result)


async def _within_deadline(
    task: inference_pb2.Task, call: Call, compute: Compute, clock: Clock
) -> inference_pb2.TaskResult:
    left_s = call.remaining_s(clock.monotonic())
    if left_s <= 0:
        raise deadline_exceeded("the member's deadline had passed before it was computed")
    async with asyncio.timeout(None if math.isinf(left_s) else left_s):
        return await compute(task, call)
