"""The Open Inference Protocol (KServe v2) as Triton serves it: `inference.GRPCInferenceService`,
over the same models and threads as our own contract.

Codes are Triton's: an unknown model or version is NOT_FOUND, a bad tensor INVALID_ARGUMENT, a load
that fails INTERNAL.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib.metadata
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.inference_onnx_quantized.api import kserve_tensors
from penstock.inference_onnx_quantized.api.kserve_statistics import ModelCounts
from penstock.inference_onnx_quantized.api.orca import LoadTrailer
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads, LoadMeter
from penstock.inference_onnx_quantized.repository import LoadedModel, ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel
from penstock.onnx.session import BadInput
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.errors import Fault, internal, invalid, not_found, to_fault, unauthenticated
from penstock.service.clock import Clock

NAME = "inference.GRPCInferenceService"
EXTENSIONS = ("model_repository", "model_configuration", "statistics")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class KServeServicer:
    """inference.GRPCInferenceService. Where the settings ask for a token, callers must send it."""

    def __init__(
        self,
        settings: InferenceSettings,
        repository: ModelRepository,
        threads: ComputeThreads,
        meter: LoadMeter,
        clock: Clock,
        report: Callable[[], common_pb2.LoadReport],
    ) -> None:
        self._settings = settings
        self._repository = repository
        self._threads = threads
        self._meter = meter
        self._clock = clock
        self._token = settings.internal_token if settings.kserve_needs_token() else ""
        self._counts: dict[tuple[str, str], ModelCounts] = {}
        self._trailer = LoadTrailer(report, clock)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register on a server that is not yet started."""
        kserve_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)

    async def ServerLive(
        self, request: kserve.ServerLiveRequest, context: Context
    ) -> kserve.ServerLiveResponse:
        return kserve.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: kserve.ServerReadyRequest, context: Context
    ) -> kserve.ServerReadyResponse:
        return kserve.ServerReadyResponse(ready=bool(self._repository.loaded()))

    async def ModelReady(
        self, request: kserve.ModelReadyRequest, context: Context
    ) -> kserve.ModelReadyResponse:
        async with self._answering(context):
            try:
                self._model(request.name, request.version)
            except Fault:
                return kserve.ModelReadyResponse(ready=False)
            return kserve.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: kserve.ServerMetadataRequest, context: Context
    ) -> kserve.ServerMetadataResponse:
        version = importlib.metadata.version("onnxruntime")
        return kserve.ServerMetadataResponse(
            name="penstock", version=f"onnxruntime {version}", extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: kserve.ModelMetadataRequest, context: Context
    ) -> kserve.ModelMetadataResponse:
        async with self._answering(context):
            model = self._model(request.name, request.version)
            session = model.encoder.session
            return kserve.ModelMetadataResponse(
                name=model.card.name,
                versions=[model.card.version],
                platform="onnxruntime_onnx",
                inputs=kserve_tensors.tensor_metadata(session.inputs),
                outputs=kserve_tensors.tensor_metadata(session.outputs),
            )

    async def ModelConfig(
        self, request: kserve.ModelConfigRequest, context: Context
    ) -> kserve.ModelConfigResponse:
        async with self._answering(context):
            model = self._model(request.name, request.version)
            session = model.encoder.session
            config = kserve_tensors.model_config(
                model.card.name, model.card.model, session.inputs, session.outputs
            )
            return kserve.ModelConfigResponse(config=config)

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, context: Context
    ) -> kserve.ModelInferResponse:
        async with self._answering(context):
            return await self._infer(request, context)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[kserve.ModelInferRequest], context: Context
    ) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        """Answer in the order of the requests; a failure takes its request's place and the stream
        goes on.
        """
        async with self._answering(context):
            async for request in requests:
                try:
                    response = await self._infer(request, context)
                    yield kserve.ModelStreamInferResponse(infer_response=response)
                except Exception as error:
                    empty = kserve.ModelInferResponse(id=request.id, model_name=request.model_name)
                    yield kserve.ModelStreamInferResponse(
                        error_message=to_fault(error).message, infer_response=empty
                    )

    async def ModelStatistics(
        self, request: kserve.ModelStatisticsRequest, context: Context
    ) -> kserve.ModelStatisticsResponse:
        async with self._answering(context):
            models = (
                [self._model(request.name, request.version)]
                if request.name
                else self._repository.loaded()
            )
            keys = [(model.card.name, model.card.version) for model in models]
            rows = [self._counts.get(key, ModelCounts()).to_proto(*key) for key in keys]
            return kserve.ModelStatisticsResponse(model_stats=rows)

    async def RepositoryIndex(
        self, request: kserve.RepositoryIndexRequest, context: Context
    ) -> kserve.RepositoryIndexResponse:
        async with self._answering(context):
            _check_repository(request.repository_name)
            index = kserve.RepositoryIndexResponse()
            ready = {model.card.name: model.card.version for model in self._repository.loaded()}
            for name in sorted(ready):
                index.models.add(name=name, version=ready[name], state="READY")
            for name in self._repository.names():
                if name not in ready and not request.ready:
                    reason = self._repository.failed.get(name, "unloaded")
                    index.models.add(name=name, state="UNAVAILABLE", reason=reason)
            return index

    async def RepositoryModelLoad(
        self, request: kserve.RepositoryModelLoadRequest, context: Context
    ) -> kserve.RepositoryModelLoadResponse:
        async with self._answering(context):
            _check_repository(request.repository_name)
            if request.parameters:
                raise invalid(
                    "parameters", "a configuration or files with the request are not served here"
                )
            await self._load(request.model_name)
            return kserve.RepositoryModelLoadResponse()

    async def _load(self, name: str) -> None:
        """Load a model's highest version; a failure has Triton's code and text."""
        try:
            await asyncio.to_thread(self._repository.load, name)
        except BadModel as error:
            raise internal(f"failed to load '{name}', {error}") from None
        except Fault as fault:
            if fault.code is not grpc.StatusCode.NOT_FOUND:
                raise
            message = f"failed to load '{name}', failed to poll from model repository"
            raise internal(message) from None

    async def RepositoryModelUnload(
        self, request: kserve.RepositoryModelUnloadRequest, context: Context
    ) -> kserve.RepositoryModelUnloadResponse:
        """Unloading a model that is not loaded changes nothing and is no error, as with Triton."""
        async with self._answering(context):
            _check_repository(request.repository_name)
            if any(model.card.name == request.model_name for model in self._repository.loaded()):
                self._repository.unload(request.model_name)
            return kserve.RepositoryModelUnloadResponse()

    async def _infer(
        self, request: kserve.ModelInferRequest, context: Context
    ) -> kserve.ModelInferResponse:
        """Compute a request in a thread and count it; sets the load trailer."""
        model = self._model(request.model_name, request.model_version)
        counts = self._counts_of(model)
        began_s = self._clock.monotonic()
        self._meter.add(1)
        try:
            (response, rows), compute_s = await self._threads.run(
                lambda _: self._compute(model, request)
            )
        except BaseException:
            counts.record_failure(self._clock.monotonic() - began_s)
            raise
        finally:
            self._meter.remove(1)
        total_s = self._clock.monotonic() - began_s
        counts.record_success(rows, total_s, compute_s, round(self._clock.time() * 1e3))
        context.set_trailing_metadata(self._trailer.current())
        return response

    def _counts_of(self, model: LoadedModel) -> ModelCounts:
        key = (model.card.name, model.card.version)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = ModelCounts()
        return counts

    def _compute(
        self, model: LoadedModel, request: kserve.ModelInferRequest
    ) -> tuple[kserve.ModelInferResponse, int]:
        """The response and its number of rows; runs in a compute thread."""
        session, max_bytes = model.encoder.session, self._settings.max_tensor_bytes
        inputs = kserve_tensors.input_arrays(
            request, session.inputs, self._settings.max_texts, max_bytes
        )
        names = kserve_tensors.output_names(request, session.outputs)
        try:
            outputs = dict(zip(names, session.run(inputs, names), strict=True))
        except BadInput as error:
            raise invalid(f"inputs[{', '.join(inputs)}]", str(error)) from None
        if sum(array.nbytes for array in outputs.values()) > max_bytes:
            raise invalid("outputs", f"would take more than {max_bytes} bytes; send fewer rows")
        rows = max((array.shape[0] for array in inputs.values() if array.ndim), default=1)
        response = kserve_tensors.infer_response(
            request, model.card.version, outputs, session.outputs
        )
        return response, rows

    def _model(self, name: str, version: str) -> LoadedModel:
        """The loaded model, in that version where one is named."""
        if version and not version.isdigit():
            message = f"failed to get model version from specified version string '{version}'"
            raise invalid("model_version", message)
        unknown = f"Request for unknown model: '{name}'"
        try:
            model = self._repository.get(name)
        except Fault:
            raise not_found("", f"{unknown} is not found") from None
        if version and version != model.card.version:
            raise not_found("", f"{unknown} version {version} is not found")
        return model

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncIterator[None]:
        """Check the caller and keep to the call's deadline; a failure leaves as its gRPC status."""
        left_s = context.time_remaining()
        try:
            if self._token:
                self._authenticate(context)
            if left_s is None or math.isinf(left_s):
                yield
                return
            async with asyncio.timeout(max(0.0, left_s)):
                yield
        except asyncio.CancelledError:
            raise
        except Exception as error:
            fault = to_fault(error)
            await context.abort(fault.code, fault.message)

    def _authenticate(self, context: Context) -> None:
        """Refuse a caller that does not send the internal token."""
        sent = dict(context.invocation_metadata() or ()).get(TOKEN_KEY, "")
        sent_bytes = sent.encode() if isinstance(sent, str) else sent
        if not hmac.compare_digest(sent_bytes, self._token.encode()):
            raise unauthenticated(
                f"this port is internal; send the internal token in the header {TOKEN_KEY}"
            )


def _check_repository(name: str) -> None:
    """Refuse a named repository: there is one here, without a name."""
    if name:
        raise invalid(
            "repository_name",
            f"there is one repository here, without a name; {name!r} is not it: leave it empty",
        )
