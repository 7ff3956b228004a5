"""The models of the fleets for the Open Inference Protocol (KServe v2): a request is a call as any
other, admitted, looked up, routed and batched, and its receipt is in the response's parameters.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.router.v1 import router_pb2
from penstock.kserve.grpc_service import INFER
from penstock.kserve.grpc_service import NAME as SERVICE
from penstock.kserve.model_server import Computed, Parameters, ServedModel, Trailer
from penstock.otel.telemetry import Telemetry
from penstock.router.calls.handler import CallHandler
from penstock.router.identity.grants import EVERYTHING
from penstock.router.instances.registry import Registry
from penstock.router.keys import KeyRing
from penstock.router.requests.resolved import Task, sized
from penstock.rpc.auth import Metadata
from penstock.rpc.call import NOBODY, Call
from penstock.rpc.errors import Fault, failed_precondition, invalid, not_found, unimplemented
from penstock.rpc.spans import serve_under
from penstock.service.purity import pure
from penstock.tasks.kinds import INFER as INFER_KIND

EXTENSIONS = ("model_configuration", "statistics", "binary_tensor_data")
RUN, STEP = "run_id", "step"
"""Parameters of a request that name its agent run."""
OUTCOMES = {number: name for name, number in common_pb2.CacheOutcome.items()}
READY = inference_pb2.MODEL_STATE_READY
IndexRow = kserve.RepositoryIndexResponse.ModelIndex


class FleetModels:
    """See ModelServer. Callers send their API key."""

    extensions = EXTENSIONS

    def __init__(
        self, calls: CallHandler, keys: KeyRing, registry: Registry, telemetry: Telemetry
    ) -> None:
        self._calls = calls
        self._keys = keys
        self._registry = registry
        self._telemetry = telemetry
        self.version = importlib.metadata.version("penstock-router")

    def caller(self, metadata: Metadata) -> Call:
        """Whoever holds an API key."""
        return self._keys.authenticate(metadata)

    def models(self, call: Call) -> Sequence[ServedModel]:
        """The models in the caller's scope that take tensors and have an instance that serves
        them.
        """
        served = (served_as(each) for each in self._serving(call).values())
        return [model for model in served if model.inputs]

    def model(self, name: str, version: str, call: Call) -> ServedModel:
        """A model of the fleets in the caller's scope; any other is not found.

        Raises:
            Fault: NOT_FOUND; INVALID_ARGUMENT where it takes no tensors; FAILED_PRECONDITION where
                a version is named and instances have several.
        """
        unknown = f"Request for unknown model: '{name}'"
        found = self._serving(call).get(name)
        if not found:
            raise not_found("", f"{unknown} is not found")
        model = served_as(found)
        if not model.inputs:
            raise invalid("model_name", f"{name} takes no tensors; call it as its kind of task")
        if version and version not in model.versions:
            raise not_found("", f"{unknown} version {version} is not found")
        if version and len(model.versions) > 1:
            raise failed_precondition(
                "model_version",
                f"instances of {name} have versions {', '.join(model.versions)} at present, and "
                "requests are not routed by version; leave it empty",
            )
        return model

    async def infer(
        self, request: kserve.ModelInferRequest, task: inference_pb2.InferTask, call: Call
    ) -> Computed:
        """Serve a task as a call of its caller; raises Fault."""
        options = router_pb2.CallOptions(
            model=request.model_name, run_id=_text(request, RUN), step=_text(request, STEP)
        )
        call = call._replace(run_id=options.run_id, step=options.step)
        with self._telemetry.span(f"{SERVICE}/{INFER}", call, kind="server") as span:
            serve_under(span)
            task_of_kind = sized(INFER_KIND, Task(infer=task), "task.")
            outcome = await self._calls.outcome_of(options, task_of_kind, span.call)
            span.receipt(outcome.receipt)
        version = version_of(outcome.result.revision or outcome.receipt.revision)
        return Computed(outcome.result, version, receipt_parameters(outcome.receipt))

    def index(self, call: Call) -> Sequence[IndexRow]:
        """The models of the fleets in the caller's scope, a row for each version."""
        return [
            IndexRow(name=model.name, version=version, state="READY")
            for model in self.models(call)
            for version in model.versions
        ]

    async def load(self, name: str) -> None:
        """Models are loaded where they run."""
        raise _not_here()

    async def unload(self, name: str) -> None:
        """Models are unloaded where they run."""
        raise _not_here()

    def trailer(self) -> Trailer:
        """Nothing: no client balances over routers by load."""
        return ()

    def _serving(self, call: Call) -> dict[str, list[inference_pb2.Model]]:
        """By name, each model in the caller's scope as the instances have it that may be given
        work. A probe, which has no caller, is told no names.
        """
        scope = EVERYTHING if call.principal is NOBODY else self._keys.grant(call.principal).scope
        found: dict[str, list[inference_pb2.Model]] = {}
        for model in self._ready_models():
            if scope.covers_model(model.name):
                found.setdefault(model.name, []).append(model)
        return {name: found[name] for name in sorted(found)}

    def _ready_models(self) -> Iterator[inference_pb2.Model]:
        for instance in self._registry.registered.values():
            member = self._registry.members[instance.id]
            if not (member.lost or member.leaving):
                yield from (model for model in instance.models if model.state == READY)


@pure
def served_as(models: Sequence[inference_pb2.Model]) -> ServedModel:
    """A model as its instances have it: all versions, and the tensors of the latest one."""
    by_version = {version_of(model.revision): model for model in models}
    versions = sorted(by_version, key=lambda version: (len(version), version))
    latest = by_version[versions[-1]]
    inputs, outputs = tuple(latest.tensor_inputs), tuple(latest.tensor_outputs)
    return ServedModel(latest.name, tuple(versions), inputs, outputs)


@pure
def version_of(revision: str) -> str:
    """The version in a revision, which is that and the file's checksum."""
    return revision.rpartition("-")[0] or revision


@pure
def receipt_parameters(receipt: common_pb2.Receipt) -> Parameters:
    """What a response says of its call's account."""
    return {
        "request_id": receipt.request_id,
        "instance_id": receipt.route.instance_id,
        "cache": OUTCOMES[receipt.cache.outcome].removeprefix("CACHE_OUTCOME_").lower(),
        "paid_microusd": receipt.cost.paid_microusd,
    }


def _text(request: kserve.ModelInferRequest, name: str) -> str:
    if name not in request.parameters:
        return ""
    if request.parameters[name].WhichOneof("parameter_choice") != "string_param":
        raise invalid(f"parameters.{name}", "must be a text")
    return request.parameters[name].string_param


def _not_here() -> Fault:
    return unimplemented("a router loads no models; ask the instance, or LoadModel of its service")
