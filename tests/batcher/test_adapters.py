"""Batches on the wire: one message where they fit, as few as it takes where they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.batcher.fair_queue import NORMAL, Entry
from penstock.batcher.instance import CONTEXT_BYTES, INFERENCE, PeerInstance
from penstock.batcher.queue import Member
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.dispatch import MAX_REQUEST_BYTES
from penstock.rpc.endpoint import Endpoint
from penstock.service.clock import SystemClock
from penstock.testkit.instance import EmptyInstance
from penstock.testkit.server import TOKEN, peer_over


class Measuring(EmptyInstance):
    """Answers each member with the size of its text, and counts what came together."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        self.groups.append(1)
        return pb.ComputeResponse(result=measured(request.task))

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        self.groups.append(len(request.members))
        for index in reversed(range(len(request.members))):
            result = pb.MemberResult(index=index, result=measured(request.members[index].task))
            yield pb.ComputeBatchResponse(results=[result])


def measured(task: pb.Task) -> pb.TaskResult:
    return pb.TaskResult(revision=str(len(task.embed.texts[0])))


WAITING = Entry(1, NORMAL, "a", "m", 1, 10, 0.0, 100.0)


def member(size: int) -> Member:
    task = pb.Task(embed=pb.EmbedTask(texts=["x" * size]))
    return Member(WAITING, task, Call(), asyncio.get_running_loop().create_future())


async def run(sizes: list[int]) -> tuple[dict[int, str], list[int]]:
    instance = Measuring()
    async with peer_over("unix-stream", Endpoint(INFERENCE, instance, internal(TOKEN))) as peer:
        served = PeerInstance(peer, SystemClock()).run("m", [member(size) for size in sizes])
        answers = {index: result.result.revision async for index, result, _ in served}
    return answers, instance.groups


async def test_a_batch_larger_than_a_message_goes_in_parts_and_each_member_gets_its_own() -> None:
    third, alone = MAX_REQUEST_BYTES // 3 - CONTEXT_BYTES - 100, MAX_REQUEST_BYTES - 100
    sizes = [third, third + 1, third + 2, 7, alone, 5, 6]
    answers, groups = await run(sizes)
    assert answers == {index: str(size) for index, size in enumerate(sizes)}
    assert groups == [3, 1, 1, 2]


async def test_an_ordinary_batch_goes_as_one() -> None:
    assert await run([1, 2, 3]) == ({2: "3", 1: "2", 0: "1"}, [3])
