"""The inference contract on ONNX models: each RPC finds its model and computes in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.compute import compute as compute_task
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.generation import EmitChunk, discard_chunk
from penstock.inference_onnx_quantized.repository import LoadedModel, ModelRepository
from penstock.inference_onnx_quantized.request_checks import TaskLimits
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.inference_onnx_quantized.typicality import Typicality
from penstock.onnx.card import BadModel
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry
from penstock.rpc.batch_members import serve_members
from penstock.rpc.call import Call
from penstock.rpc.errors import failed_precondition
from penstock.rpc.spans import Own, Span, span_of
from penstock.service.clock import Clock
from penstock.tasks.kinds import kind_of, numbers_of


class InferenceServicer:
    """penstock.api.inference.v1.InferenceService on ONNX models."""

    def __init__(
        self,
        settings: InferenceSettings,
        repository: ModelRepository,
        threads: ComputeThreads,
        meter: LoadMeter,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._threads = threads
        self._meter = meter
        self._clock = clock
        self._telemetry = telemetry
        self._typicality: dict[str, Typicality] = {}

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        result = await self.compute(self._model(request.model), request.task, call)
        return pb.ComputeResponse(result=result, load=self.load())

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        """An answer that is made piece by piece in chunks; any other as one chunk."""
        model = self._model(request.model)
        if kind_of(request.task).streams:
            async with aclosing(self._generate(model, request.task, call)) as responses:
                async for response in responses:
                    yield response
            return
        result = await self.compute(model, request.task, call)
        chunk = pb.GenerateChunk(finish_reason=pb.FINISH_REASON_STOP)
        yield pb.ComputeStreamResponse(chunk=chunk, result=result, load=self.load())

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        model = self._model(request.model)

        async def compute_member(task: pb.Task, member: Call) -> pb.TaskResult:
            return await self.compute(model, task, member)

        served = serve_members(request.members, compute_member, self._clock)
        async with aclosing(served) as results:
            async for result in results:
                yield pb.ComputeBatchResponse(results=[result], load=self.load())

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """The loaded models, then those on disk that are unloaded or could not be loaded."""
        models = self.models()
        loaded = {model.name for model in models}
        for name in self._repository.names():
            if name not in loaded:
                reason = self._repository.failed.get(name, "")
                state = pb.MODEL_STATE_FAILED if reason else pb.MODEL_STATE_UNLOADED
                models.append(pb.Model(name=name, state=state, reason=reason))
        return pb.ListModelsResponse(models=models)

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """Load a version in a thread of its own; the earlier one serves meanwhile."""
        try:
            model = await asyncio.to_thread(self._repository.load, request.name, request.version)
        except BadModel as error:
            raise failed_precondition("name", str(error)) from None
        return pb.LoadModelResponse(model=_to_proto(model, pb.MODEL_STATE_READY))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        model = self._repository.unload(request.name)
        return pb.UnloadModelResponse(model=_to_proto(model, pb.MODEL_STATE_UNLOADED))

    def load(self) -> common_pb2.LoadReport:
        """The instance's load now."""
        meter = self._meter
        return common_pb2.LoadReport(
            in_flight=meter.in_flight,
            queued=meter.queued,
            concurrency=meter.concurrency,
            utilization=meter.utilization(self._clock.monotonic()),
            service_ms=meter.service_ms,
        )

    def models(self) -> list[pb.Model]:
        """The loaded models."""
        return [_to_proto(model, pb.MODEL_STATE_READY) for model in self._repository.loaded()]

    def _model(self, name: str) -> LoadedModel:
        """The model of that name; the first of the settings where it is empty."""
        return self._repository.get(name or self._settings.models[0])

    async def _generate(
        self, model: LoadedModel, task: pb.Task, call: Call
    ) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
        """Chunks as the compute thread makes them, then the whole result.

        Closing the generator stops the thread at its next token, which frees its slot and the
        model's cache.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[pb.GenerateChunk | None] = asyncio.Queue()

        def emit(chunk: pb.GenerateChunk) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        work = asyncio.create_task(self.compute(model, task, call, emit))
        work.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                yield pb.ComputeStreamResponse(chunk=chunk)
            yield pb.ComputeStreamResponse(result=await work, load=self.load())
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def compute(
        self, model: LoadedModel, task: pb.Task, call: Call, emit: EmitChunk = discard_chunk
    ) -> pb.TaskResult:
        """Compute a task in a thread, counted as load and described on the call's span."""
        limits = self._limits(model)
        self._meter.add(1)
        try:
            attributes: Own = {semantics.REQUEST_MODEL: model.card.name}
            with span_of(self._telemetry, "model", call, attributes) as span:
                result, seconds = await self._threads.run(
                    lambda cancelled: compute_task(model, task, limits, cancelled, emit)
                )
                result.compute_ms = seconds * 1e3
                self._describe(span, model, result)
        finally:
            self._meter.remove(1)
        return result

    def _limits(self, model: LoadedModel) -> TaskLimits:
        return TaskLimits(
            self._settings.max_texts,
            self._settings.max_text_bytes,
            model.card.max_input_tokens,
            self._settings.max_tensor_bytes,
            self._settings.max_attention_cells,
        )

    def _describe(self, span: Span, model: LoadedModel, result: pb.TaskResult) -> None:
        """Put usage on the span, and for a recorded embedding its typicality: that of the first
        text, since one number a call is enough to see a distribution move.
        """
        span.set(semantics.COMPUTE_MS, result.compute_ms)
        span.set(semantics.INPUT_TOKENS, result.usage.input_tokens)
        if result.usage.output_tokens:
            span.set(semantics.OUTPUT_TOKENS, result.usage.output_tokens)
        if span.recorded and result.embed.embeddings:
            typicality = self._typicality.setdefault(model.card.name, Typicality())
            cosine = typicality.score(result.embed.embeddings[0].values)
            if cosine is not None:
                span.set(semantics.TYPICALITY, cosine)


def _to_proto(model: LoadedModel, state: pb.ModelState) -> pb.Model:
    card = model.card
    return pb.Model(
        name=card.name,
        revision=card.revision,
        state=state,
        tasks=numbers_of(card.tasks),
        max_input_tokens=card.max_input_tokens,
        dimension=card.dimension,
        memory_bytes=model.memory_bytes,
        labels=card.labels,
        tensor_inputs=model.inputs,
        tensor_outputs=model.outputs,
    )
