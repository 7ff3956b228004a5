"""One call through several services whose last one does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer, connect
from penstock.rpc.reasons import Code
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE, EmptyInstance
from penstock.testkit.server import TOKEN

from .wire import HANG, Counting, served

HOPS = 5


class Relay(EmptyInstance):
    """Passes a call on to the next service."""

    def __init__(self, next_one: Peer) -> None:
        self.next_one = next_one
        self.left_s = 0.0
        self.ended = asyncio.Event()

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        self.left_s = call.remaining_s(time.monotonic())
        try:
            answer: pb.ComputeResponse = await self.next_one.call("Compute", request, call)
            return answer
        finally:
            self.ended.set()


@pytest.mark.fault(11)
async def test_each_hop_has_less_time_and_the_last_is_cancelled_at_the_deadline() -> None:
    leaf = Counting()
    relays: list[Relay] = []
    async with contextlib.AsyncExitStack() as owned:
        address = await owned.enter_async_context(served(leaf))
        for _ in range(HOPS - 1):
            peer = connect(address, INFERENCE, token=TOKEN)
            owned.push_async_callback(peer.close)
            relays.append(Relay(peer))
            address = await owned.enter_async_context(served(relays[-1]))
        first = connect(address, INFERENCE, token=TOKEN)
        owned.push_async_callback(first.close)
        await first.call("Compute", pb.ComputeRequest(), Call(deadline_s=time.monotonic() + 20.0))

        with pytest.raises(Fault) as caught:
            deadline_s = time.monotonic() + 0.5
            hang = pb.ComputeRequest(model=HANG)
            await first.call("Compute", hang, Call(deadline_s=deadline_s))

        assert caught.value.code is Code.DEADLINE_EXCEEDED
        left_s = [0.5, *(relay.left_s for relay in reversed(relays))]
        assert left_s == sorted(left_s, reverse=True)
        assert await eventually(lambda: leaf.running == 0 and leaf.cancelled == 1)
        for relay in relays:
            await relay.ended.wait()
