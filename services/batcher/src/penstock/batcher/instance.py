"""The instance behind a queue, called over the hop: a batch of one as Compute, more as
ComputeBatch, generate as a stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue import PendingRequest
from penstock.rpc.call import Call
from penstock.rpc.dispatch import split_to_fit
from penstock.rpc.errors import OK
from penstock.rpc.peers.stream import Peer
from penstock.service.clock import Clock

CONTEXT_BYTES = 2048
"""What a member's caller, run and trace may take beside its task."""

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]


class PeerInstance:
    """An instance reached through a Peer."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self.peer = peer
        self._clock = clock

    async def run(
        self, model: str, members: Sequence[PendingRequest]
    ) -> AsyncIterator[tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]]:
        """See queue.Instance."""
        start = 0
        for part in split_to_fit(members, _bytes_of):
            async for result, load in self._run_part(model, part):
                yield start + result.index, result, load
            start += len(part)

    async def _run_part(
        self, model: str, members: Sequence[PendingRequest]
    ) -> AsyncIterator[tuple[inference_pb2.MemberResult, common_pb2.LoadReport]]:
        if len(members) == 1:
            request = inference_pb2.ComputeRequest(model=model, task=members[0].task)
            answer: inference_pb2.ComputeResponse = await self.peer.call(
                "Compute", request, members[0].call
            )
            yield inference_pb2.MemberResult(status=OK, result=answer.result), answer.load
            return
        now = self._clock.monotonic()
        batch = inference_pb2.ComputeBatchRequest(model=model)
        for member in members:
            batch.members.add(task=member.task, context=member.call.to_context(now))
        # The carrier has no deadline of its own and belongs to nobody's trace: each member brings
        # its own.
        carrier = Call(priority=members[0].call.priority)
        async for part in self.peer.stream("ComputeBatch", batch, carrier):
            for result in part.results:
                yield result, part.load


def _bytes_of(member: PendingRequest) -> int:
    return member.task.ByteSize() + CONTEXT_BYTES
