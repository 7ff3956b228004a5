"""The instance behind a queue, called over an item stream.

A batch of one goes as `Compute`, a larger one as `ComputeBatch`, in several messages where one
cannot hold it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.requests import InstanceResult, OneResult, PendingRequest
from penstock.rpc.call import Call
from penstock.rpc.dispatch import split_to_fit
from penstock.rpc.errors import OK
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock

CONTEXT_BYTES = 2048
"""Upper bound of what a member's caller, run and trace take in a message beside its task."""

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


class PeerInstance:
    """An instance reached through a Peer. The code that dialled the peer owns it."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock

    async def run_one(self, request: PendingRequest) -> OneResult:
        """See `penstock.batcher.queue.requests.Instance`."""
        message = inference_pb2.ComputeRequest(model=request.item.model, task=request.task)
        response: inference_pb2.ComputeResponse = await self._peer.call(
            "Compute", message, request.call
        )
        return OneResult(response.result, response.load)

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        """See `penstock.batcher.queue.requests.Instance`."""
        start = 0
        for part in split_to_fit(requests, _message_bytes):
            if len(part) == 1:
                alone = await self.run_one(part[0])
                yield start, inference_pb2.MemberResult(status=OK, result=alone.result), alone.load
            else:
                async for index, result, load in self._run(model, part):
                    yield start + index, result, load
            start += len(part)

    async def _run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        now = self._clock.monotonic()
        message = inference_pb2.ComputeBatchRequest(model=model)
        for request in requests:
            message.members.add(task=request.task, context=request.call.to_context(now))
        # The call that carries the batch has no deadline and no trace: each member has its own.
        carrier = Call(priority=requests[0].call.priority)
        async for response in self._peer.stream("ComputeBatch", message, carrier):
            for result in response.results:
                yield result.index, result, response.load


def _message_bytes(request: PendingRequest) -> int:
    return request.task.ByteSize() + CONTEXT_BYTES
