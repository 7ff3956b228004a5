"""Fake instances: an empty one to derive from, and one that answers members of a batch in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import OK

INFERENCE = pb.DESCRIPTOR.services_by_name["InferenceService"]


class EmptyInstance:
    """penstock.api.inference.v1.InferenceService with empty answers; tests override methods."""

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        return pb.ComputeResponse()

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """See InferenceService."""
        yield pb.ComputeStreamResponse()

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        """See InferenceService."""
        yield pb.ComputeBatchResponse()

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """See InferenceService."""
        return pb.ListModelsResponse()

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """See InferenceService."""
        return pb.LoadModelResponse()

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        """See InferenceService."""
        return pb.UnloadModelResponse()


class OneByOneInstance(EmptyInstance):
    """An instance whose batches are computed member by member with `Compute`, to be overridden."""

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        """See InferenceService; each member's result is sent as soon as it is ready."""
        for index, member in enumerate(request.members):
            answer = await self.Compute(pb.ComputeRequest(task=member.task), call)
            result = pb.MemberResult(index=index, status=OK, result=answer.result)
            yield pb.ComputeBatchResponse(results=[result])


class SleepingInstance(OneByOneInstance):
    """Embeds each text as `[1.0]` after `compute_s`, one request at a time.

    `compute_s` may be changed while it serves.
    """

    def __init__(self, compute_s: float) -> None:
        self.compute_s = compute_s
        self._busy = asyncio.Lock()

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        """See InferenceService."""
        async with self._busy:
            await asyncio.sleep(self.compute_s)
        result = pb.TaskResult(revision="sleeping", compute_ms=self.compute_s * 1e3)
        result.embed.embeddings.add(values=[1.0])
        return pb.ComputeResponse(result=result)
