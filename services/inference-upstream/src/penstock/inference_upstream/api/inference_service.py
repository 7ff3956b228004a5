"""The inference contract, answered by one server of hosted models."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.adapters import ADAPTERS, stream_answer
from penstock.inference_upstream.settings import UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import Telemetry
from penstock.rpc.batch_members import serve_members
from penstock.rpc.call import Call
from penstock.rpc.errors import failed_precondition, not_found
from penstock.rpc.spans import Own
from penstock.service.clock import Clock
from penstock.tasks.kinds import kind_of, numbers_of

MODALITIES = {
    "text": pb.MODALITY_TEXT,
    "image": pb.MODALITY_IMAGE,
    "file": pb.MODALITY_FILE,
}


class UpstreamServicer:
    """penstock.api.inference.v1.InferenceService before one server of hosted models."""

    def __init__(self, client: Client, clock: Clock, telemetry: Telemetry) -> None:
        self._client = client
        self._clock = clock
        self._telemetry = telemetry
        self._models = {model.name: model for model in client.upstream.models}

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        result = await self._compute(request.model, request.task, call)
        return pb.ComputeResponse(result=result, load=self.load())

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """An answer that is made piece by piece in chunks; any other as one chunk."""
        model = self._model(request.model, request.task)
        if kind_of(request.task).streams:
            async with aclosing(self._stream(model, request.task.generate, call)) as responses:
                async for response in responses:
                    yield response
            return
        result = await self._compute(request.model, request.task, call)
        chunk = pb.GenerateChunk(finish_reason=pb.FINISH_REASON_STOP)
        yield pb.ComputeStreamResponse(chunk=chunk, result=result, load=self.load())

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        async def compute_member(task: pb.Task, member: Call) -> pb.TaskResult:
            return await self._compute(request.model, task, member)

        served = serve_members(request.members, compute_member, self._clock)
        async with aclosing(served) as results:
            async for result in results:
                yield pb.ComputeBatchResponse(results=[result], load=self.load())

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self.models())

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        raise failed_precondition(
            "name",
            "an upstream loads its own models; list them in the upstreams section of the file",
        )

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        raise failed_precondition("name", "an upstream unloads its own models")

    def load(self) -> common_pb2.LoadReport:
        """The calls under way."""
        return common_pb2.LoadReport(in_flight=self._client.in_flight)

    def models(self) -> list[pb.Model]:
        """The models that are configured for the upstream."""
        return [
            pb.Model(
                name=model.name,
                state=pb.MODEL_STATE_READY,
                tasks=numbers_of(model.tasks),
                max_input_tokens=model.max_input_tokens,
                max_output_tokens=model.max_output_tokens,
                inputs=[MODALITIES[modality] for modality in model.inputs],
                revision=model.name_at_upstream,
            )
            for model in self._models.values()
        ]

    async def _stream(
        self, model: UpstreamModel, task: pb.GenerateTask, call: Call
    ) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
        """Chunks as they come, the last with the whole result. Closing the generator ends the call
        there.
        """
        began_s = time.perf_counter()
        with self._telemetry.span(
            "upstream", call, kind="client", attributes=self._attributes(model)
        ):
            async with aclosing(stream_answer(self._client, model, task)) as parts:
                async for part in parts:
                    if part.HasField("result"):
                        part.result.compute_ms = (time.perf_counter() - began_s) * 1e3
                        part.load.CopyFrom(self.load())
                    yield part

    async def _compute(self, name: str, task: pb.Task, call: Call) -> pb.TaskResult:
        """The whole result of a task, within a span."""
        model = self._model(name, task)
        began_s = time.perf_counter()
        with self._telemetry.span(
            "upstream", call, kind="client", attributes=self._attributes(model)
        ):
            result = await ADAPTERS[kind_of(task).name](self._client, model, task)
        result.compute_ms = (time.perf_counter() - began_s) * 1e3
        return result

    def _model(self, name: str, task: pb.Task) -> UpstreamModel:
        """The model of that name, the first where it is empty; it must serve the task's kind."""
        model = self._models.get(name) if name else next(iter(self._models.values()))
        if model is None:
            known = ", ".join(self._models)
            upstream = self._client.upstream.name
            raise not_found("model", f"{name!r} is not served by {upstream}; it serves {known}")
        kind = kind_of(task).name
        if kind not in model.tasks:
            served = ", ".join(model.tasks)
            raise failed_precondition("task", f"is {kind}; model {model.name} serves {served}")
        return model

    def _attributes(self, model: UpstreamModel) -> Own:
        return {
            "gen_ai.request.model": model.name_at_upstream,
            "server.address": self._client.upstream.name,
        }
