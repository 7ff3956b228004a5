"""The door: each RPC is proto in, one piece of work, proto out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_onnx_quantized.classification import TextLimits
from penstock.inference_onnx_quantized.compute import compute
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads
from penstock.inference_onnx_quantized.generation import EmitChunk, discard_chunk
from penstock.inference_onnx_quantized.load_meter import LoadMeter
from penstock.inference_onnx_quantized.repository import LoadedModel, ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.inference_onnx_quantized.typicality import Typicality
from penstock.onnx.card import BadModel
from penstock.otel import attributes as semantics
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.errors import OK, failed_precondition, to_item_status
from penstock.rpc.spans import Span
from penstock.service.clock import Clock

READY = pb.MODEL_STATE_READY


class InferenceServicer:
    """penstock.api.inference.v1.InferenceService on ONNX models."""

    def __init__(
        self,
        settings: InferenceSettings,
        repository: ModelRepository,
        runner: ComputeThreads,
        meter: LoadMeter,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._runner = runner
        self._meter = meter
        self._clock = clock
        self._telemetry = telemetry
        self._typicality: dict[str, Typicality] = {}

    async def Compute(self, request: pb.ComputeRequest, call: Call) -> pb.ComputeResponse:
        result = await self._compute(self._model(request.model), request.task, call)
        return pb.ComputeResponse(result=result, load=self.load())

    async def ComputeStream(
        self, request: pb.ComputeStreamRequest, call: Call
    ) -> AsyncIterator[pb.ComputeStreamResponse]:
        model = self._model(request.model)
        if request.task.WhichOneof("task") == "generate":
            async with aclosing(self._generate(model, request.task, call)) as parts:
                async for part in parts:
                    yield part
            return
        result = await self._compute(model, request.task, call)
        chunk = pb.GenerateChunk(finish_reason=pb.FINISH_REASON_STOP)
        yield pb.ComputeStreamResponse(chunk=chunk, result=result, load=self.load())

    async def ComputeBatch(
        self, request: pb.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[pb.ComputeBatchResponse]:
        model = self._model(request.model)
        now = self._clock.monotonic()
        tasks = [
            asyncio.create_task(
                self._member(index, member, model, Call.from_context(member.context, now))
            )
            for index, member in enumerate(request.members)
        ]
        try:
            for done in asyncio.as_completed(tasks):
                yield pb.ComputeBatchResponse(results=[await done], load=self.load())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        rows = [_row(loaded, READY) for loaded in self._repository.loaded()]
        names = {row.name for row in rows}
        for name in self._repository.names():
            if name not in names:
                reason = self._repository.failed.get(name, "")
                state = pb.MODEL_STATE_FAILED if reason else pb.MODEL_STATE_UNLOADED
                rows.append(pb.Model(name=name, state=state, reason=reason))
        return pb.ListModelsResponse(models=rows)

    async def LoadModel(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """In a thread of its own: the compute slots go on answering from the old version."""
        try:
            loaded = await asyncio.to_thread(self._repository.load, request.name, request.version)
        except BadModel as error:
            raise failed_precondition("name", str(error)) from None
        return pb.LoadModelResponse(model=_row(loaded, READY))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, call: Call
    ) -> pb.UnloadModelResponse:
        return pb.UnloadModelResponse(
            model=_row(self._repository.unload(request.name), pb.MODEL_STATE_UNLOADED)
        )

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
        """The loaded models, for registration."""
        return [_row(loaded, READY) for loaded in self._repository.loaded()]

    def _model(self, name: str) -> LoadedModel:
        return self._repository.get(name or self._settings.models[0])

    async def _member(
        self, index: int, member: pb.BatchMember, model: LoadedModel, call: Call
    ) -> pb.MemberResult:
        try:
            async with asyncio.timeout(max(0.0, call.remaining_s(self._clock.monotonic()))):
                return pb.MemberResult(
                    index=index, status=OK, result=await self._compute(model, member.task, call)
                )
        except Exception as error:
            return pb.MemberResult(index=index, status=to_item_status(error))

    async def _generate(
        self, model: LoadedModel, task: pb.Task, call: Call
    ) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
        """Pieces as the thread makes them.

        Leaving this early stops the thread at its next token, which frees slot and cache.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[pb.GenerateChunk | None]()

        def show(chunk: pb.GenerateChunk) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, chunk)

        work = asyncio.create_task(self._compute(model, task, call, show))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield pb.ComputeStreamResponse(chunk=piece)
            yield pb.ComputeStreamResponse(result=await work, load=self.load())
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _compute(
        self, model: LoadedModel, task: pb.Task, call: Call, show: EmitChunk = discard_chunk
    ) -> pb.TaskResult:
        limits = TextLimits(
            self._settings.max_texts,
            self._settings.max_text_bytes,
            model.card.max_input_tokens,
            self._settings.max_tensor_bytes,
        )
        self._meter.accepted(1)
        try:
            with self._telemetry.span(
                "model", call, attributes={"gen_ai.request.model": model.card.name}
            ) as span:
                result, seconds = await self._runner.run(
                    lambda cancelled: compute(model, task, limits, cancelled, show)
                )
                span.set("gen_ai.usage.input_tokens", result.usage.input_tokens)
                if result.usage.output_tokens:
                    span.set("gen_ai.usage.output_tokens", result.usage.output_tokens)
                if span.recorded and result.HasField("embed"):
                    self._say_typicality(span, model.card.name, result.embed)
        finally:
            self._meter.finished(1)
        result.compute_ms = seconds * 1e3
        return result

    def _say_typicality(self, span: Span, model: str, answer: pb.EmbedResult) -> None:
        """Of the first text: one number a call is enough to see a distribution move."""
        usual = self._typicality.setdefault(model, Typicality())
        if answer.embeddings and (cosine := usual.of(answer.embeddings[0].values)) is not None:
            span.set(semantics.TYPICALITY, cosine)


def _row(loaded: LoadedModel, state: pb.ModelState) -> pb.Model:
    card = loaded.card
    return pb.Model(
        name=card.name,
        revision=card.revision,
        state=state,
        tasks=card.tasks,
        max_input_tokens=card.max_input_tokens,
        dimension=card.dimension,
        memory_bytes=loaded.memory_bytes,
        labels=card.labels,
    )
