"""Batches on the wire: one message where they fit, else as few as they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.batcher.instance import CONTEXT_BYTES, INFERENCE, PeerInstance
from penstock.batcher.queue.requests import NORMAL, PendingRequest, WorkItem
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.dispatch import ONE_MESSAGE_BYTES
from penstock.rpc.endpoint import Endpoint
from penstock.service.clock import SystemClock
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.server import TOKEN, peer_over

ITEM = WorkItem(1, NORMAL, "a", "m", 1, 10, 0.0, 100.0)


class MeasuringInstance(EmptyInstance):
    """Answers each task with the size of its text, last first, and counts the members of each
    message.
    """

    def __init__(self) -> None:
        self.message_sizes: list[int] = []

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        self.message_sizes.append(1)
        return pb.ComputeResponse(result=text_size(request.task))

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        self.message_sizes.append(len(request.members))
        for index in reversed(range(len(request.members))):
            result = pb.MemberResult(index=index, result=text_size(request.members[index].task))
            yield pb.ComputeBatchResponse(results=[result])


def text_size(task: pb.Task) -> pb.TaskResult:
    return pb.TaskResult(revision=str(len(task.embed.texts[0])))


def request_of_size(size: int) -> PendingRequest:
    task = pb.Task(embed=pb.EmbedTask(texts=["x" * size]))
    return PendingRequest(ITEM, task, Call(), asyncio.get_running_loop().create_future())


async def run_batch(sizes: list[int]) -> tuple[dict[int, str], list[int]]:
    """The answers by position, and the number of members of each message."""
    instance = MeasuringInstance()
    endpoint = Endpoint(INFERENCE, instance, internal(TOKEN))
    async with peer_over("unix-stream", endpoint) as peer:
        requests = [request_of_size(size) for size in sizes]
        results = PeerInstance(peer, SystemClock()).run("m", requests)
        answers = {index: result.result.revision async for index, result, _ in results}
    return answers, instance.message_sizes


async def test_a_batch_larger_than_a_message_goes_in_parts_and_keeps_its_positions() -> None:
    third = ONE_MESSAGE_BYTES // 3 - CONTEXT_BYTES - 100
    alone = ONE_MESSAGE_BYTES - 100
    sizes = [third, third + 1, third + 2, 7, alone, 5, 6]
    answers, message_sizes = await run_batch(sizes)
    assert answers == {index: str(size) for index, size in enumerate(sizes)}
    assert message_sizes == [3, 1, 1, 2]


async def test_an_ordinary_batch_goes_as_one_message() -> None:
    assert await run_batch([1, 2, 3]) == ({2: "3", 1: "2", 0: "1"}, [3])
