"""Background work beside requests, ours and others': what of it is counted as requests."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.standards.service import EXPORT_METHODS, RunningTelemetry, running_telemetry
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.testkit.eventually import eventually

REQUEST = "RouterService/Embed"
BACKGROUND_NAMES = (
    "CacheService/ListKeys",
    "RouterService/WatchJob",
    "RegistryService/Heartbeat",
    "RegistryService/Register",
    "BatcherService/AttachInstance",
    "InferenceService/ListModels",
    "BatcherService/ListQueues",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "externalscaler.ExternalScaler/GetMetrics",
    "inference.GRPCInferenceService/ServerReady",
    "CacheService/StoreAll",
    "GET /healthz",
    "GET /metrics",
)
FOLLOW_UPS = ("CacheService/Store", "LimiterService/RenewLease", "LimiterService/Commit")
"""Background only where no request caused them."""
SERVICE = "penstock.api.router.v1."
SETTLED_S = 30.0
LONG_NS, SHORT_NS = 30_000_000_000, 5_000_000


async def seen_background(folder: Path) -> list[str]:
    """Send requests and background work; where the latter is seen in answers about requests, a line
    for each answer and name.
    """
    async with running_telemetry(folder) as telemetry:
        await telemetry.channel.unary_unary(EXPORT_METHODS["traces"])(_export().SerializeToString())
        await asyncio.to_thread(_record_own, telemetry.address)
        await eventually(lambda: _settled(telemetry), SETTLED_S)
        return await _found(telemetry)


def _export() -> otlp.ExportTraceServiceRequest:
    """A trace of each name, and a long poll inside a request's trace."""
    request = otlp.ExportTraceServiceRequest()
    names = [REQUEST] * 20 + [*BACKGROUND_NAMES, *FOLLOW_UPS]
    for number, name in enumerate(names, start=1):
        service = "router" if name == REQUEST else "background"
        spans = [_span(number, 1, name, SHORT_NS if name == REQUEST else LONG_NS)]
        _add(request, service, spans)
    inside = _span(1, 2, "CacheService/ListKeys", LONG_NS)
    inside.parent_span_id = (1).to_bytes(8, "big")
    _add(request, "background", [inside])
    return request


def _add(
    request: otlp.ExportTraceServiceRequest, service: str, spans: list[trace_pb2.Span]
) -> None:
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.scope_spans.add().spans.extend(spans)


def _span(trace: int, number: int, name: str, duration_ns: int) -> trace_pb2.Span:
    start_ns = time.time_ns()
    span = trace_pb2.Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=name,
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + duration_ns,
    )
    span.attributes.add(key="penstock.tier").value.string_value = "short"
    return span


def _record_own(address: str) -> None:
    """The same names through our own sender, as our services send them."""
    telemetry = Telemetry("sender", address, slow_s=0.0)
    for name in (REQUEST, *BACKGROUND_NAMES, *FOLLOW_UPS):
        with telemetry.span(SERVICE + name, Call(), kind="server"):
            pass
    telemetry.close(10.0)


async def _settled(telemetry: RunningTelemetry) -> bool:
    graph = await telemetry.peer.call("GetServiceGraph", pb.GetServiceGraphRequest(), Call())
    overview = await telemetry.peer.call("GetOverview", pb.GetOverviewRequest(), Call())
    counted = sum(edge.calls for edge in graph.edges) >= 21
    return counted and any(row.service == "sender" for row in overview.rows)


async def _found(telemetry: RunningTelemetry) -> list[str]:
    ask = telemetry.peer.call
    graph = await ask("GetServiceGraph", pb.GetServiceGraphRequest(), Call())
    paths = await ask("GetCriticalPath", pb.GetCriticalPathRequest(), Call())
    latencies = await ask("GetLatencies", pb.GetLatenciesRequest(), Call())
    searched = await ask("SearchTraces", pb.SearchTracesRequest(limit=1000), Call())
    overview = await ask("GetOverview", pb.GetOverviewRequest(), Call())
    durations = await ask(
        "GetMetrics", pb.GetMetricsRequest(name="rpc.server.call.duration"), Call()
    )
    found = [f"graph: {edge.server}" for edge in graph.edges if edge.server == "background"]
    found += [f"critical path: {row.name}" for row in paths.rows if not _is_request(row.name)]
    found += [f"latency: {row.name}" for row in latencies.rows if not _is_request(row.name)]
    found += [f"search: {row.name}" for row in searched.traces if not _is_request(row.name)]
    found += [f"latency: {row.service}" for row in overview.rows if row.p99_ms > LONG_NS / 2e6]
    methods = [series.labels["rpc.method"] for series in durations.series]
    found += [f"durations: {name}" for name in methods if _is_background(name)]
    asked = await ask(
        "SearchTraces", pb.SearchTracesRequest(limit=1000, include_background=True), Call()
    )
    shown = {row.name for row in asked.traces}
    found += [f"cannot be asked for: {name}" for name in BACKGROUND_NAMES if name not in shown]
    return found


def _is_request(name: str) -> bool:
    return name.endswith(REQUEST)


def _is_background(name: str) -> bool:
    return any(name.endswith(part) for part in BACKGROUND_NAMES)
