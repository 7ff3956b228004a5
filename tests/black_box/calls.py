"""Calling the services as a caller does: generated stubs, metadata, and what a refusal says."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from penstock.api.batcher.v1 import batcher_pb2_grpc
from penstock.api.cache.v1 import cache_pb2_grpc
from penstock.api.common.v1 import common_pb2
from penstock.api.envoy import ratelimit_pb2_grpc
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.api.keda import externalscaler_pb2_grpc
from penstock.api.kserve import inference_pb2_grpc as kserve_pb2_grpc
from penstock.api.limiter.v1 import limiter_pb2, limiter_pb2_grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.api.scaler.v1 import scaler_pb2_grpc
from penstock.api.telemetry.v1 import telemetry_pb2_grpc

from .configuration import secret_of
from .system import System

TIMEOUT_S = 20.0
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Refusal:
    """How a call failed: code, message, and google.rpc's details where there are any."""

    code: str
    message: str
    reason: str = ""
    field: str = ""
    retry_s: float | None = None


def read_refusal(error: grpc.RpcError) -> Refusal:
    """The failure of a call with its ErrorInfo, BadRequest and RetryInfo."""
    reason, field, retry_s = "", "", None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            assert info.domain == "penstock"
            reason = info.reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            (bad,) = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            field = bad.field
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_s = delay.ToNanoseconds() / 1e9
    return Refusal(error.code().name, error.details() or "", reason, field, retry_s)


async def refused(call: Awaitable[Any]) -> Refusal:
    """The refusal of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError(f"the call was answered: {answer}")


async def broken(call: AsyncIterable[Any]) -> tuple[list[Any], Refusal]:
    """What a stream that must fail has brought before, and its refusal."""
    messages: list[Any] = []
    try:
        async for message in call:
            messages.append(message)  # noqa: PERF401 - a comprehension would lose what came before
    except grpc.aio.AioRpcError as error:
        return messages, read_refusal(error)
    raise AssertionError(f"the stream ended well: {messages}")


class Api:
    """Stubs of every service of a system, and the metadata that opens its internal ports."""

    def __init__(self, system: System) -> None:
        self.system = system
        at = self.channels = {
            name: grpc.aio.insecure_channel(address) for name, address in system.addresses.items()
        }
        self.router = router_pb2_grpc.RouterServiceStub(at["router"])
        self.registry = router_pb2_grpc.RegistryServiceStub(at["router"])
        self.limiter = limiter_pb2_grpc.LimiterServiceStub(at["limiter"])
        self.brief_limiter = limiter_pb2_grpc.LimiterServiceStub(at["brief_limiter"])
        """Counts in the same ledger; its holds expire after a second."""
        self.operators = limiter_pb2_grpc.LimiterAdminServiceStub(at["operators"])
        self.envoy = ratelimit_pb2_grpc.RateLimitServiceStub(at["envoy"])
        self.cache = cache_pb2_grpc.CacheServiceStub(at["cache"])
        self.batcher = batcher_pb2_grpc.BatcherServiceStub(at["batcher"])
        self.inference = inference_pb2_grpc.InferenceServiceStub(at["inference"])
        self.kserve = kserve_pb2_grpc.GRPCInferenceServiceStub(at["inference"])
        self.upstream = inference_pb2_grpc.InferenceServiceStub(at["upstream"])
        self.telemetry = telemetry_pb2_grpc.TelemetryServiceStub(at["telemetry"])
        self.scaler = scaler_pb2_grpc.ScalerServiceStub(at["scaler"])
        self.keda = externalscaler_pb2_grpc.ExternalScalerStub(at["keda"])
        self.slow_scaler = scaler_pb2_grpc.ScalerServiceStub(at["slow_scaler"])
        """Has the same pools, knows no other scaler, and decides every three seconds."""
        self.slow_keda = externalscaler_pb2_grpc.ExternalScalerStub(at["slow_keda"])

    async def close(self) -> None:
        """Close every channel."""
        for channel in self.channels.values():
            await channel.close()

    @property
    def token(self) -> Metadata:
        """What internal ports ask for."""
        return (("penstock-token", self.system.token),)

    @property
    def operator(self) -> Metadata:
        """What the operators' port asks for."""
        return (("authorization", f"Bearer {self.system.operator}"),)

    def on_behalf(self, organisation: str, **context: Any) -> Metadata:
        """The internal token and a call's context; `context` are its fields or its principal's."""
        parts = ("team", "user", "key_id", "tags")
        who = {name: context.pop(name) for name in parts if name in context}
        sent = common_pb2.CallContext(**{"remaining_ms": 20_000, **context})
        sent.principal.CopyFrom(common_pb2.Principal(organisation=organisation, **who))
        return (*self.token, ("penstock-context-bin", sent.SerializeToString()))

    def caller(self, key: str = "") -> Caller:
        """A caller with this key; with one of a tenant of its own where none is named."""
        return Caller(self, key or self.system.fresh_tenant())

    async def ledger(self, organisation: str, model: str = "", **who: Any) -> dict[str, Counted]:
        """What the limiter has booked for a path, by rule."""
        answer = await self.limiter.GetUsage(
            limiter_pb2.GetUsageRequest(model=model), metadata=self.on_behalf(organisation, **who)
        )
        return {row.rule: Counted(_one(row.committed), _one(row.held)) for row in answer.rules}


@dataclass(frozen=True)
class Counted:
    """A row of the ledger, in what its rule counts."""

    committed: int
    held: int = 0


def _one(amount: limiter_pb2.Amount) -> int:
    return amount.requests + amount.tokens + amount.microusd


def options(**fields: Any) -> router_pb2.CallOptions:
    """CallOptions; `cache` is a mapping of CachePolicy's fields."""
    return router_pb2.CallOptions(**fields)


def chat(prompt: str, *, system: str = "", **fields: Any) -> inference_pb2.GenerateTask:
    """A conversation of one user turn, after a system turn where there is one."""
    task = inference_pb2.GenerateTask(**fields)
    if system:
        task.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    task.messages.add(role=inference_pb2.ROLE_USER, content=prompt)
    return task


class Caller:
    """Somebody with an API key at the router's public port. `**options` are CallOptions' fields."""

    def __init__(self, api: Api, key: str) -> None:
        self.api, self.key = api, key
        self.metadata: Metadata = (("authorization", f"Bearer {secret_of(key)}"),)
        self._how = {"metadata": self.metadata, "timeout": TIMEOUT_S}

    async def embed(self, *texts: str, **fields: Any) -> router_pb2.EmbedResponse:
        """Embed texts with the default model, or with `model`."""
        request = router_pb2.EmbedRequest(texts=texts, options=options(**fields))
        return await self.api.router.Embed(request, **self._how)

    async def classify(
        self, texts: Sequence[str], examples: Mapping[str, str], top_k: int = 0, **fields: Any
    ) -> router_pb2.ClassifyResponse:
        """Label texts by examples: texts by label."""
        request = router_pb2.ClassifyRequest(
            texts=texts,
            options=options(**fields),
            top_k=top_k,
            examples=[
                inference_pb2.LabelledExample(label=label, text=text)
                for label, text in examples.items()
            ],
        )
        return await self.api.router.Classify(request, **self._how)

    async def generate(
        self, task: inference_pb2.GenerateTask, timeout: float = TIMEOUT_S, **fields: Any
    ) -> router_pb2.GenerateResponse:
        """Have a conversation continued."""
        request = router_pb2.GenerateRequest(task=task, options=options(**fields))
        return await self.api.router.Generate(request, metadata=self.metadata, timeout=timeout)

    def stream(
        self, task: inference_pb2.GenerateTask, timeout: float = TIMEOUT_S, **fields: Any
    ) -> Any:
        """Have a conversation continued piece by piece; gives the call."""
        request = router_pb2.GenerateStreamRequest(task=task, options=options(**fields))
        return self.api.router.GenerateStream(request, metadata=self.metadata, timeout=timeout)

    async def submit(
        self, task: inference_pb2.Task, fields: Mapping[str, Any], **more: Any
    ) -> router_pb2.Job:
        """Hand in a job; `fields` are CallOptions', `more` the request's."""
        request = router_pb2.SubmitJobRequest(task=task, options=options(**fields), **more)
        return (await self.api.router.SubmitJob(request, **self._how)).job

    async def job(self, job_id: str) -> router_pb2.Job:
        """A job as it is now."""
        return (await self.api.router.GetJob(router_pb2.GetJobRequest(id=job_id), **self._how)).job
