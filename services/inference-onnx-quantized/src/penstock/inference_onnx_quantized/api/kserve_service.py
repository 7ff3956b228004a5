"""The KServe v2 door: `inference.GRPCInferenceService` as Triton speaks it, over the same
repository and threads.

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
from penstock.api.orca import orca_load_report_pb2 as orca
from penstock.inference_onnx_quantized.api import kserve_tensors
from penstock.inference_onnx_quantized.api.kserve_statistics import ModelCounts
from penstock.inference_onnx_quantized.compute_threads import ComputeThreads
from penstock.inference_onnx_quantized.load_meter import LoadMeter
from penstock.inference_onnx_quantized.repository import LoadedModel, ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.onnx.card import BadModel
from penstock.onnx.session import BadInput
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.errors import Fault, internal, invalid, not_found, to_fault, unauthenticated
from penstock.service.clock import Clock

NAME = "inference.GRPCInferenceService"
TRAILER = "endpoint-load-metrics-bin"
REPORT_S = 0.01
EXTENSIONS = ("model_repository", "model_configuration", "statistics")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class KServeServicer:
    """inference.GRPCInferenceService. With a token, only callers that hold it are let in."""

    def __init__(
        self,
        settings: InferenceSettings,
        repository: ModelRepository,
        runner: ComputeThreads,
        meter: LoadMeter,
        clock: Clock,
        report: Callable[[], common_pb2.LoadReport],
    ) -> None:
        self._settings, self._repository, self._runner = settings, repository, runner
        self._meter, self._clock, self._report = meter, clock, report
        self._token = settings.internal_token if settings.kserve_needs_token() else ""
        self._counts: dict[tuple[str, str], ModelCounts] = {}
        self._reported_s, self._last = -math.inf, ((TRAILER, b""),)

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
            loaded = self._model(request.name, request.version)
            session = loaded.encoder.session
            return kserve.ModelMetadataResponse(
                name=loaded.card.name,
                versions=[loaded.card.version],
                platform="onnxruntime_onnx",
                inputs=kserve_tensors.metadata(session.inputs),
                outputs=kserve_tensors.metadata(session.outputs),
            )

    async def ModelConfig(
        self, request: kserve.ModelConfigRequest, context: Context
    ) -> kserve.ModelConfigResponse:
        async with self._answering(context):
            loaded = self._model(request.name, request.version)
            session = loaded.encoder.session
            return kserve.ModelConfigResponse(
                config=kserve_tensors.config(
                    loaded.card.name, loaded.card.model, session.inputs, session.outputs
                )
            )

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, context: Context
    ) -> kserve.ModelInferResponse:
        async with self._answering(context):
            return await self._infer(request, context)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[kserve.ModelInferRequest], context: Context
    ) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        """Answers in the order of the requests; one that fails says so in its place and the stream
        goes on.
        """
        async with self._answering(context):
            async for request in requests:
                try:
                    yield kserve.ModelStreamInferResponse(
                        infer_response=await self._infer(request, context)
                    )
                except Exception as error:
                    empty = kserve.ModelInferResponse(id=request.id, model_name=request.model_name)
                    yield kserve.ModelStreamInferResponse(
                        error_message=to_fault(error).message, infer_response=empty
                    )

    async def ModelStatistics(
        self, request: kserve.ModelStatisticsRequest, context: Context
    ) -> kserve.ModelStatisticsResponse:
        async with self._answering(context):
            chosen = (
                [self._model(request.name, request.version)]
                if request.name
                else self._repository.loaded()
            )
            keys = [(loaded.card.name, loaded.card.version) for loaded in chosen]
            rows = [self._counts.get(key, ModelCounts()).row(*key) for key in keys]
            return kserve.ModelStatisticsResponse(model_stats=rows)

    async def RepositoryIndex(
        self, request: kserve.RepositoryIndexRequest, context: Context
    ) -> kserve.RepositoryIndexResponse:
        async with self._answering(context):
            _only_ours(request.repository_name)
            index = kserve.RepositoryIndexResponse()
            ready = {loaded.card.name: loaded.card.version for loaded in self._repository.loaded()}
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
            _only_ours(request.repository_name)
            if request.parameters:
                raise invalid(
                    "parameters", "a configuration or files with the request are not served here"
                )
            name = request.model_name
            try:
                await asyncio.to_thread(self._repository.load, name)
            except BadModel as error:
                raise internal(f"failed to load '{name}', {error}") from None
            except Fault as fault:
                if fault.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                raise internal(
                    f"failed to load '{name}', failed to poll from model repository"
                ) from None
            return kserve.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: kserve.RepositoryModelUnloadRequest, context: Context
    ) -> kserve.RepositoryModelUnloadResponse:
        """Unloading what is not loaded changes nothing and is no error, as with Triton."""
        async with self._answering(context):
            _only_ours(request.repository_name)
            if any(loaded.card.name == request.model_name for loaded in self._repository.loaded()):
                self._repository.unload(request.model_name)
            return kserve.RepositoryModelUnloadResponse()

    async def _infer(
        self, request: kserve.ModelInferRequest, context: Context
    ) -> kserve.ModelInferResponse:
        loaded = self._model(request.model_name, request.model_version)
        counts = self._counts.get(key := (loaded.card.name, loaded.card.version))
        if counts is None:
            counts = self._counts[key] = ModelCounts()
        began = self._clock.monotonic()
        self._meter.accepted(1)
        try:
            (answer, rows), seconds = await self._runner.run(
                lambda _: self._compute(loaded, request)
            )
        except BaseException:
            counts.failed(self._clock.monotonic() - began)
            raise
        finally:
            self._meter.finished(1)
        counts.answered(
            rows, self._clock.monotonic() - began, seconds, round(self._clock.time() * 1e3)
        )
        context.set_trailing_metadata(self._trailer())
        return answer

    def _compute(
        self, loaded: LoadedModel, request: kserve.ModelInferRequest
    ) -> tuple[kserve.ModelInferResponse, int]:
        """In a thread: bytes to arrays, the model, arrays to bytes."""
        session, settings = loaded.encoder.session, self._settings
        given = kserve_tensors.arrays(
            request, session.inputs, settings.max_texts, settings.max_tensor_bytes
        )
        names = kserve_tensors.outputs(request, session.outputs)
        try:
            answers = dict(zip(names, session.run(given, names), strict=True))
        except BadInput as error:
            raise invalid(f"inputs[{', '.join(given)}]", str(error)) from None
        if sum(array.nbytes for array in answers.values()) > settings.max_tensor_bytes:
            raise invalid(
                "outputs",
                f"would take more than {settings.max_tensor_bytes} bytes; send fewer rows",
            )
        rows = max((array.shape[0] for array in given.values() if array.ndim), default=1)
        return kserve_tensors.response(request, loaded.card.version, answers, session.outputs), rows

    def _model(self, name: str, version: str) -> LoadedModel:
        if version and not version.isdigit():
            raise invalid(
                "model_version",
                f"failed to get model version from specified version string '{version}'",
            )
        try:
            loaded = self._repository.get(name)
        except Fault:
            raise not_found("", f"Request for unknown model: '{name}' is not found") from None
        if version and version != loaded.card.version:
            raise not_found(
                "", f"Request for unknown model: '{name}' version {version} is not found"
            )
        return loaded

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncIterator[None]:
        """Check the caller and give the call its deadline; a failure leaves as its status."""
        left = context.time_remaining()
        try:
            if self._token:
                self._let_in(context)
            if left is None or math.isinf(left):
                yield
                return
            async with asyncio.timeout(max(0.0, left)):
                yield
        except asyncio.CancelledError:
            raise
        except Exception as error:
            fault = to_fault(error)
            await context.abort(fault.code, fault.message)

    def _let_in(self, context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get(TOKEN_KEY, "")
        if not hmac.compare_digest(
            given.encode() if isinstance(given, str) else given, self._token.encode()
        ):
            raise unauthenticated(
                f"this port is internal; send the internal token in the header {TOKEN_KEY}"
            )

    def _trailer(self) -> tuple[tuple[str, bytes], ...]:
        """The load as it is, or was at most `REPORT_S` ago: making a report costs as much as
        parsing a request.
        """
        now = self._clock.monotonic()
        if now >= self._reported_s + REPORT_S:
            self._reported_s, self._last = (
                now,
                ((TRAILER, orca_report(self._report()).SerializeToString()),),
            )
        return self._last


def orca_report(load: common_pb2.LoadReport) -> orca.OrcaLoadReport:
    """A load report in ORCA's terms.

    `batch_fill` is the share of compute slots that have a request.
    """
    named = {"in_flight": load.in_flight, "queued": load.queued, "concurrency": load.concurrency}
    return orca.OrcaLoadReport(
        application_utilization=load.utilization,
        utilization={"batch_fill": min(1.0, load.in_flight / max(1, load.concurrency))},
        named_metrics={**named, "service_ms": load.service_ms},
    )


def _only_ours(repository: str) -> None:
    if repository:
        raise invalid(
            "repository_name",
            f"there is one repository here, without a name; {repository!r} is not it",
        )
