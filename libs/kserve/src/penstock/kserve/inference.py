"""The protocol's calls, whatever they came by: each takes a message and gives one, or raises Fault.

Codes are Triton's: an unknown model or version is NOT_FOUND, a bad tensor INVALID_ARGUMENT, a load
that fails INTERNAL.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.model_server import Computed, ModelServer, ServedModel, Trailer
from penstock.kserve.requests import in_protocol_words, rows_of, timeout_s, to_task
from penstock.kserve.responses import config_of, infer_response, metadata_of
from penstock.kserve.statistics import ModelCounts
from penstock.rpc.auth import CallerMetadata
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, deadline_exceeded, invalid
from penstock.rpc.open_calls import OpenCall, OpenCalls
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock

SERVER_NAME = "penstock"
DEFAULT_DEADLINE_S = 30.0
"""Given to requests whose caller sets no deadline, as HTTP's cannot."""
OPEN_RPCS = frozenset({"ServerLive", "ServerReady", "ServerMetadata"})
"""RPCs without credentials: whoever probes has none."""
MAX_COUNTED_MODELS = 1_000
"""Models and versions whose statistics are kept; the least recently used are forgotten."""

CountKey = tuple[str, str, str]
"""Organisation, model and version."""


class Inference:
    """Answers the protocol's calls, by the names of its RPCs, with what a model server can do.

    Args:
        default_deadline_s: of calls that set none.
        open_calls: knows the calls in flight; None: nobody ends them.
    """

    def __init__(
        self,
        server: ModelServer,
        clock: Clock,
        default_deadline_s: float,
        open_calls: OpenCalls | None = None,
    ) -> None:
        self._server = server
        self._clock = clock
        self._default_deadline_s = default_deadline_s
        self._open_calls = open_calls
        self._counts: BoundedMap[CountKey, ModelCounts] = BoundedMap(MAX_COUNTED_MODELS)

    def opened(self, rpc: str, metadata: CallerMetadata) -> AbstractContextManager[OpenCall | None]:
        """Count a call among those in flight: the block raises Fault once its caller is accepted no
        more. Probes have no caller, and are not counted.
        """
        if self._open_calls is None or rpc in OPEN_RPCS:
            return nullcontext()
        return self._open_calls.enter(metadata)

    async def authenticated(self, rpc: str, metadata: CallerMetadata) -> Call:
        """The Call of whoever sent this metadata, without a deadline; anybody may probe the server.

        Raises:
            Fault: UNAUTHENTICATED.
        """
        if rpc in OPEN_RPCS:
            return Call()
        caller = self._server.caller(metadata)
        return caller if isinstance(caller, Call) else await caller

    def timed(self, call: Call, left_s: float | None) -> Call:
        """The call with its deadline.

        Args:
            left_s: how long its caller still waits; None or infinite where it does not say.
        """
        wait_s = self._default_deadline_s if left_s is None or math.isinf(left_s) else left_s
        return call._replace(deadline_s=self._clock.monotonic() + wait_s)

    def trailer(self) -> Trailer:
        """Metadata that follows an answer over gRPC."""
        return self._server.trailer()

    async def ServerLive(
        self, request: kserve.ServerLiveRequest, call: Call
    ) -> kserve.ServerLiveResponse:
        """Whether the server answers."""
        return kserve.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: kserve.ServerReadyRequest, call: Call
    ) -> kserve.ServerReadyResponse:
        """Whether a model is ready."""
        return kserve.ServerReadyResponse(ready=bool(self._server.models(call)))

    async def ServerMetadata(
        self, request: kserve.ServerMetadataRequest, call: Call
    ) -> kserve.ServerMetadataResponse:
        """Name, version and extensions."""
        return kserve.ServerMetadataResponse(
            name=SERVER_NAME, version=self._server.version, extensions=self._server.extensions
        )

    async def ModelReady(
        self, request: kserve.ModelReadyRequest, call: Call
    ) -> kserve.ModelReadyResponse:
        """Whether a model is ready; one that is not known is not."""
        try:
            self._server.model(request.name, request.version, call)
        except Fault:
            return kserve.ModelReadyResponse(ready=False)
        return kserve.ModelReadyResponse(ready=True)

    async def ModelMetadata(
        self, request: kserve.ModelMetadataRequest, call: Call
    ) -> kserve.ModelMetadataResponse:
        """A model's inputs and outputs."""
        return metadata_of(self._model(request.name, request.version, call))

    async def ModelConfig(
        self, request: kserve.ModelConfigRequest, call: Call
    ) -> kserve.ModelConfigResponse:
        """A model's configuration as Triton would derive it."""
        return kserve.ModelConfigResponse(
            config=config_of(self._model(request.name, request.version, call))
        )

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, call: Call
    ) -> kserve.ModelInferResponse:
        """Compute a request within the time that it has, and count it."""
        model = self._model(request.model_name, request.model_version, call)
        began_s = self._clock.monotonic()
        try:
            computed = await self._computed(model, request, call)
        except BaseException as error:
            version = request.model_version or model.versions[-1]
            counts = self._counts_of(_key_of(call, model.name, version))
            counts.record_failure(self._clock.monotonic() - began_s)
            if isinstance(error, Fault):
                raise in_protocol_words(error) from None
            raise
        self._counts_of(_key_of(call, model.name, computed.version)).record_success(
            rows_of(request),
            self._clock.monotonic() - began_s,
            computed.result.compute_ms / 1e3,
            round(self._clock.time() * 1e3),
        )
        return infer_response(request, computed)

    async def ModelStatistics(
        self, request: kserve.ModelStatisticsRequest, call: Call
    ) -> kserve.ModelStatisticsResponse:
        """What the caller's organisation was answered since the start, for one model or for all
        that are ready.
        """
        if request.name:
            models: Sequence[ServedModel] = [self._model(request.name, request.version, call)]
        else:
            models = self._server.models(call)
        keys = [
            _key_of(call, model.name, version)
            for model in models
            for version in model.versions
            if request.version in ("", version)
        ]
        rows = [(self._counts.get(key) or ModelCounts()).to_proto(*key[1:]) for key in keys]
        return kserve.ModelStatisticsResponse(model_stats=rows)

    async def RepositoryIndex(
        self, request: kserve.RepositoryIndexRequest, call: Call
    ) -> kserve.RepositoryIndexResponse:
        """Every model and its state."""
        _check_repository(request.repository_name)
        rows = [
            row for row in self._server.index(call) if row.state == "READY" or not request.ready
        ]
        return kserve.RepositoryIndexResponse(models=rows)

    async def RepositoryModelLoad(
        self, request: kserve.RepositoryModelLoadRequest, call: Call
    ) -> kserve.RepositoryModelLoadResponse:
        """Load a model's highest version."""
        _check_repository(request.repository_name)
        if request.parameters:
            raise invalid(
                "parameters", "a configuration or files with the request are not served here"
            )
        await self._server.load(request.model_name)
        return kserve.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: kserve.RepositoryModelUnloadRequest, call: Call
    ) -> kserve.RepositoryModelUnloadResponse:
        """Unload a model; one that is not loaded is no error, as with Triton."""
        _check_repository(request.repository_name)
        await self._server.unload(request.model_name)
        return kserve.RepositoryModelUnloadResponse()

    async def _computed(
        self, model: ServedModel, request: kserve.ModelInferRequest, call: Call
    ) -> Computed:
        """Compute a request within the time that its call and its own parameter leave."""
        task = to_task(request, model)
        now = self._clock.monotonic()
        own_s = timeout_s(request)
        if own_s is not None:
            call = call._replace(deadline_s=min(call.deadline_s, now + own_s))
        left_s = call.remaining_s(now)
        if left_s <= 0:
            raise deadline_exceeded("no time was left when the request arrived")
        async with asyncio.timeout(left_s):
            return await self._server.infer(request, task, call)

    def _model(self, name: str, version: str, call: Call) -> ServedModel:
        """The model, in that version where one is named; versions are numbers in the protocol."""
        if version and not version.isdigit():
            message = f"failed to get model version from specified version string '{version}'"
            raise invalid("model_version", message)
        return self._server.model(name, version, call)

    def _counts_of(self, key: CountKey) -> ModelCounts:
        counts = self._counts.get(key)
        if counts is None:
            counts = ModelCounts()
            self._counts.put(key, counts)
        return counts


def _key_of(call: Call, name: str, version: str) -> CountKey:
    return (call.principal.organisation, name, version)


def _check_repository(name: str) -> None:
    """Refuse a named repository: there is one here, without a name."""
    if name:
        raise invalid(
            "repository_name",
            f"there is one repository here, without a name; {name!r} is not it: leave it empty",
        )
