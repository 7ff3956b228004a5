"""Several batchers asked as one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from penstock.api.batcher.v1 import batcher_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.peers.merged import MergedPeer

REQUEST = pb.ListQueuesRequest()


class Batcher:
    """A peer of a batcher with these queues; None: it does not answer."""

    responds = True

    def __init__(self, *instances: str | None) -> None:
        self._instances = instances
        self.closed = False

    async def call(self, method: str, request: Message, call: Call) -> Any:
        if None in self._instances:
            raise unavailable("it does not answer")
        queues = [pb.Queue(instance_id=name) for name in self._instances if name]
        return pb.ListQueuesResponse(queues=queues)

    def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed = True


async def queues_of(*batchers: Batcher) -> list[str]:
    answer = await MergedPeer(batchers).call("ListQueues", REQUEST, Call())
    return [queue.instance_id for queue in answer.queues]


async def test_the_queues_of_all_batchers_follow_each_other() -> None:
    assert await queues_of(Batcher("a", "b"), Batcher(), Batcher("c")) == ["a", "b", "c"]


async def test_a_batcher_that_does_not_answer_is_left_out() -> None:
    assert await queues_of(Batcher(None), Batcher("b")) == ["b"]


async def test_the_call_fails_where_no_batcher_answers() -> None:
    with pytest.raises(Fault, match="it does not answer"):
        await queues_of(Batcher(None), Batcher(None))


async def test_all_are_closed_together() -> None:
    batchers = [Batcher(), Batcher()]
    await MergedPeer(batchers).close()
    assert all(batcher.closed for batcher in batchers)
