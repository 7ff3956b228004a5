"""The models of this instance for the Open Inference Protocol (KServe v2), computed in the same way
as tasks of our own contract.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib.metadata
from collections.abc import Sequence

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.inference_onnx_quantized.api.inference_service import InferenceServicer
from penstock.inference_onnx_quantized.api.orca import LoadTrailer
from penstock.inference_onnx_quantized.repository import LoadedModel, ModelRepository
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.kserve.model_server import Computed, ServedModel, Trailer
from penstock.onnx.card import BadModel
from penstock.rpc.auth import TOKEN_KEY, Metadata
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, internal, invalid, not_found, unauthenticated
from penstock.service.clock import Clock

EXTENSIONS = ("model_repository", "model_configuration", "statistics", "binary_tensor_data")
IndexRow = kserve.RepositoryIndexResponse.ModelIndex


class LoadedModels:
    """See ModelServer. Where the settings ask for a token, callers must send it."""

    extensions = EXTENSIONS

    def __init__(
        self,
        settings: InferenceSettings,
        repository: ModelRepository,
        servicer: InferenceServicer,
        clock: Clock,
    ) -> None:
        self._token = settings.kserve_token if settings.kserve_needs_token() else None
        self._repository = repository
        self._servicer = servicer
        self._trailer = LoadTrailer(servicer.load, clock)
        self.version = f"onnxruntime {importlib.metadata.version('onnxruntime')}"

    def caller(self, metadata: Metadata) -> Call:
        """Anybody, or whoever sends the token; nobody where there is none to be sent."""
        if self._token is not None:
            sent = metadata.get(TOKEN_KEY, "")
            sent_bytes = sent.encode() if isinstance(sent, str) else sent
            if not self._token or not hmac.compare_digest(sent_bytes, self._token.encode()):
                raise unauthenticated(
                    f"KServe v2 needs PENSTOCK_KSERVE_TOKEN here; send it in the header {TOKEN_KEY}"
                )
        parent = metadata.get("traceparent", "")
        return Call(traceparent=parent if isinstance(parent, str) else "")

    def models(self) -> Sequence[ServedModel]:
        """The loaded models, but for those that take conversations."""
        return [_served(model) for model in self._repository.loaded() if model.inputs]

    def model(self, name: str, version: str) -> ServedModel:
        """A loaded model; raises Fault."""
        return _served(self._loaded(name, version))

    async def infer(
        self, request: kserve.ModelInferRequest, task: inference_pb2.InferTask, call: Call
    ) -> Computed:
        """Compute a task in a compute thread, counted as load; raises Fault."""
        model = self._loaded(request.model_name, request.model_version)
        result = await self._servicer.compute(model, inference_pb2.Task(infer=task), call)
        return Computed(result, model.card.version)

    def index(self) -> Sequence[IndexRow]:
        """The loaded models, then those that are on disk only and why."""
        ready = {model.card.name: model.card.version for model in self._repository.loaded()}
        rows = [IndexRow(name=name, version=ready[name], state="READY") for name in sorted(ready)]
        for name in self._repository.names():
            if name not in ready:
                reason = self._repository.failed.get(name, "unloaded")
                rows.append(IndexRow(name=name, state="UNAVAILABLE", reason=reason))
        return rows

    async def load(self, name: str) -> None:
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

    async def unload(self, name: str) -> None:
        """Unload a model, if it is loaded."""
        if any(model.card.name == name for model in self._repository.loaded()):
            self._repository.unload(name)

    def trailer(self) -> Trailer:
        """The load report of ORCA."""
        return self._trailer.current()

    def _loaded(self, name: str, version: str) -> LoadedModel:
        unknown = f"Request for unknown model: '{name}'"
        try:
            model = self._repository.get(name)
        except Fault:
            raise not_found("", f"{unknown} is not found") from None
        if version and version != model.card.version:
            raise not_found("", f"{unknown} version {version} is not found")
        if not model.inputs:
            raise invalid("model_name", f"{name} takes conversations and no tensors")
        return model


def _served(model: LoadedModel) -> ServedModel:
    return ServedModel(
        model.card.name, (model.card.version,), model.inputs, model.outputs, model.card.model
    )
