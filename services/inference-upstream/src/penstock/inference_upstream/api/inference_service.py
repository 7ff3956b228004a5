"""The door: the inference contract, answered by the upstream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols import openai_chat as policy
from penstock.inference_upstream.settings import UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.otel.telemetry import Telemetry
from penstock.rpc.batch_members import serve_members
from penstock.rpc.call import Call
from penstock.rpc.errors import failed_precondition, invalid, not_found
from penstock.rpc.spans import Own
from penstock.service.clock import Clock


class UpstreamServicer:
    """penstock.api.inference.v1.InferenceService before one OpenAI-compatible server."""

    def __init__(self, client: Client, clock: Clock, telemetry: Telemetry) -> None:
        self._client, self._clock, self._telemetry = client, clock, telemetry
        self._models = {model.name: model for model in client.upstream.models}

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        result = await self._compute(request.model, request.task, call)
        return pb.ComputeResponse(result=result, load=self.load())

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        model = self._model(request.model, request.task)
        if request.task.WhichOneof("task") != "generate":
            result = await self._compute(request.model, request.task, call)
            chunk = pb.GenerateChunk(finish_reason=pb.FINISH_REASON_STOP)
            yield pb.ComputeStreamResponse(chunk=chunk, result=result, load=self.load())
            return
        task, began = request.task.generate, time.perf_counter()
        with self._telemetry.span(
            "upstream", call, kind="client", attributes=self._attributes(model)
        ):
            body = policy.chat_body(
                task,
                model.upstream_name or model.name,
                stream=True,
                resumes=self._client.upstream.resumes,
            )
            async with aclosing(self._client.chat(body, task)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if isinstance(piece, pb.TaskResult):
                        piece.compute_ms = (time.perf_counter() - began) * 1e3
                        yield pb.ComputeStreamResponse(result=piece, load=self.load())
                    else:
                        yield pb.ComputeStreamResponse(chunk=piece)

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        async def compute_member(task: pb.Task, member: Call) -> pb.TaskResult:
            return await self._compute(request.model, task, member)

        served = serve_members(request.members, compute_member, self._clock)
        async with aclosing(served) as results:
            async for result in results:
                yield pb.ComputeBatchResponse(results=[result], load=self.load())

    async def _compute(self, name: str, task: pb.Task, call: Call) -> pb.TaskResult:
        model, began = self._model(name, task), time.perf_counter()
        wanted = model.upstream_name or model.name
        with self._telemetry.span(
            "upstream", call, kind="client", attributes=self._attributes(model)
        ):
            if task.WhichOneof("task") == "embed":
                body = await self._client.post("/embeddings", policy.embed_body(task.embed, wanted))
                result = policy.embeddings(body, task.embed)
            else:
                body = await self._client.post(
                    "/chat/completions",
                    policy.chat_body(
                        task.generate, wanted, stream=False, resumes=self._client.upstream.resumes
                    ),
                )
                result = policy.answer(body, task.generate)
        result.compute_ms = (time.perf_counter() - began) * 1e3
        return result

    def _model(self, name: str, task: pb.Task) -> UpstreamModel:
        model = self._models.get(name) or (next(iter(self._models.values())) if not name else None)
        if model is None:
            raise not_found("model", f"{name!r} is not served by {self._client.upstream.name}")
        kind = task.WhichOneof("task")
        if kind is None:
            raise invalid("task", "is empty")
        if kind not in model.tasks:
            raise failed_precondition(
                "task", f"{model.name} does {', '.join(model.tasks)}, not {kind}"
            )
        return model

    def _attributes(self, model: UpstreamModel) -> Own:
        return {
            "gen_ai.request.model": model.upstream_name or model.name,
            "server.address": self._client.upstream.name,
        }

    def load(self) -> common_pb2.LoadReport:
        """Calls under way."""
        return common_pb2.LoadReport(in_flight=self._client.in_flight)

    def models(self) -> list[pb.Model]:
        """What is served, for the registry."""
        return [
            pb.Model(
                name=model.name,
                state=pb.MODEL_STATE_READY,
                tasks=model.tasks,
                max_input_tokens=model.max_input_tokens,
                revision=model.upstream_name or model.name,
            )
            for model in self._models.values()
        ]

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self.models())

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        raise failed_precondition(
            "name", "an upstream's models are its own to load; name them in the file"
        )

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        raise failed_precondition("name", "an upstream's models are its own to unload")
