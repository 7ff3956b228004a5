"""An instance that answers everything with nothing: tests say what theirs does otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.call import Call


class EmptyInstance:
    """penstock.api.inference.v1.InferenceService with empty answers, to be derived from."""

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        return pb.ComputeResponse()

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        yield pb.ComputeStreamResponse()

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        yield pb.ComputeBatchResponse()

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        return pb.LoadModelResponse()

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        return pb.UnloadModelResponse()
