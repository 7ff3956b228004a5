"""Who may come in: API keys at the public port, internal token and operators' secrets behind it."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.cache.v1 import cache_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2
from penstock.api.telemetry.v1 import telemetry_pb2

from .calls import TIMEOUT_S, Api, Caller, Metadata, Refusal, chat, read_refusal, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]


def unauthenticated(fault: Refusal, help_: str) -> bool:
    """Whether nobody known was calling, and the message says what to send."""
    bare = Refusal("UNAUTHENTICATED", fault.message, reason="UNAUTHENTICATED")
    return fault == bare and help_ in fault.message


INTERNAL = [
    ("registry", "ListFleets", router_pb2.ListFleetsRequest()),
    ("limiter", "GetUsage", limiter_pb2.GetUsageRequest()),
    ("cache", "GetStats", cache_pb2.GetStatsRequest()),
    ("batcher", "ListQueues", batcher_pb2.ListQueuesRequest()),
    ("inference", "ListModels", inference_pb2.ListModelsRequest()),
    ("upstream", "ListModels", inference_pb2.ListModelsRequest()),
    ("telemetry", "GetIntake", telemetry_pb2.GetIntakeRequest()),
    ("scaler", "ListDecisions", scaler_pb2.ListDecisionsRequest()),
]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer "),),
        (("authorization", "Basic psk-tenant-000"),),
        (("authorization", "Bearer psk-nobody"),),
        (("penstock-token", "internal-token-of-the-black-box"),),
    ],
)
async def test_the_public_port_wants_a_known_key(api: Api, metadata: Metadata) -> None:
    call = api.router.ListModels(router_pb2.ListModelsRequest(), metadata=metadata)
    assert unauthenticated(await refused(call), "authorization: Bearer")


async def test_the_scheme_of_a_key_is_read_in_any_case(api: Api) -> None:
    metadata = (("authorization", "bearer psk-tenant-000"),)
    assert (await api.router.ListModels(router_pb2.ListModelsRequest(), metadata=metadata)).models


async def test_a_stream_wants_a_key_too(api: Api) -> None:
    call = api.router.GenerateStream(router_pb2.GenerateStreamRequest(task=chat("hello")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert unauthenticated(read_refusal(caught.value), "authorization: Bearer")


@pytest.mark.parametrize(
    ("service", "method", "request_"), INTERNAL, ids=lambda part: str(part)[:9]
)
async def test_internal_ports_want_the_internal_token(
    api: Api, service: str, method: str, request_: object
) -> None:
    call = getattr(getattr(api, service), method)
    for metadata in ((), (("penstock-token", "wrong"),), api.caller("patient").metadata):
        fault = await refused(call(request_, metadata=metadata, timeout=TIMEOUT_S))
        assert unauthenticated(fault, "the token of a service")
    # What telemetry has taken in is of all tenants together: operators alone may ask.
    known = api.token if service == "telemetry" else api.on_behalf("tenant-000")
    await call(request_, metadata=known, timeout=TIMEOUT_S)


async def test_operators_have_credentials_of_their_own(api: Api) -> None:
    request = limiter_pb2.ListRulesRequest()
    for metadata in ((), api.token):
        fault = await refused(api.operators.ListRules(request, metadata=metadata))
        assert unauthenticated(fault, "Bearer")
    assert (await api.operators.ListRules(request, metadata=api.operator)).rules


async def test_a_context_that_is_none_is_refused(api: Api) -> None:
    metadata = (*api.token, ("penstock-context-bin", b"\xff\xff"))
    fault = await refused(api.limiter.GetUsage(limiter_pb2.GetUsageRequest(), metadata=metadata))
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", "penstock-context-bin")


@pytest.mark.parametrize("name", ["RouterService/Embed", "RouterService/GenerateStream"])
async def test_bytes_that_are_no_request_are_refused(api: Api, caller: Caller, name: str) -> None:
    call = api.channels["router"].unary_unary(f"/penstock.api.router.v1.{name}")
    fault = await refused(call(b"\xff\xff\xff", metadata=caller.metadata))
    assert fault.code == "INVALID_ARGUMENT"
    assert (
        fault.message == f"the request is not a penstock.api.router.v1.{name.split('/')[1]}Request"
    )


async def test_a_message_of_more_than_four_megabytes_is_refused(caller: Caller) -> None:
    assert (await refused(caller.embed("x" * (4 << 20)))).code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("address", "services"),
    [
        (
            "router",
            {
                "penstock.api.router.v1.RouterService",
                "penstock.api.router.v1.RegistryService",
                "inference.GRPCInferenceService",
            },
        ),
        ("cache", {"penstock.api.cache.v1.CacheService"}),
        ("limiter", {"penstock.api.limiter.v1.LimiterService"}),
        ("operators", {"penstock.api.limiter.v1.LimiterAdminService"}),
        ("envoy", {"envoy.service.ratelimit.v3.RateLimitService"}),
        ("batcher", {"penstock.api.batcher.v1.BatcherService"}),
        (
            "inference",
            {"penstock.api.inference.v1.InferenceService", "inference.GRPCInferenceService"},
        ),
        ("upstream", {"penstock.api.inference.v1.InferenceService"}),
        ("scaler", {"penstock.api.scaler.v1.ScalerService"}),
        ("keda", {"externalscaler.ExternalScaler"}),
        (
            "telemetry",
            {
                "penstock.api.telemetry.v1.TelemetryService",
                "opentelemetry.proto.collector.trace.v1.TraceService",
                "opentelemetry.proto.collector.metrics.v1.MetricsService",
                "opentelemetry.proto.collector.logs.v1.LogsService",
            },
        ),
    ],
)
async def test_every_port_shows_its_services_and_their_health_to_anybody(
    api: Api, address: str, services: set[str]
) -> None:
    channel = api.channels[address]
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *services):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    listing = reflection.ServerReflectionInfo()
    await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    shown = {row.name for row in (await listing.read()).list_services_response.service}
    listing.cancel()
    assert shown == services | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
