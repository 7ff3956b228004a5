"""The OTLP door: TraceService, MetricsService and LogsService of the OpenTelemetry collector
protocol, for any exporter.

Requests arrive as bytes, so that what is malformed is INVALID_ARGUMENT and what is forwarded is
what came. Spans of one Export are taken in slices, so that queries are answered in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as names
from penstock.rpc.errors import internal, invalid, to_fault, to_rpc_status, unavailable
from penstock.telemetry.ingest.metric_points import has_forward_only, remove_malformed_points
from penstock.telemetry.spans.spans import Source, plain_attributes
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.retention import retry_after_s

TRACE = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
METRICS = metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name
LOGS = logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"].full_name
SERVICE_NAMES = (TRACE, METRICS, LOGS)
SLICE = 500
"""Spans taken before others get their turn."""

MAX_EXPORT_BYTES = 64 << 20
MALFORMED_POINTS = (
    "points need a name, a finite value, and histograms one count more than rising bounds, "
    "adding up to the count"
)
FORWARD_ONLY_POINTS = "exponential histograms and summaries are forwarded but not kept"
M = TypeVar("M", bound=Message)
Answer = Callable[[bytes], Awaitable[Message]]


class OtlpReceiver:
    """Takes exports into the store."""

    def __init__(self, store: TelemetryStore, most_pending_spans: int) -> None:
        self._store = store
        self._most_pending = most_pending_spans
        self._pending = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the three services to a server."""
        for name, answer in ((TRACE, self.traces), (METRICS, self.metrics), (LOGS, self.logs)):
            handler = grpc.unary_unary_rpc_method_handler(
                _guarded(answer), None, lambda m: m.SerializeToString()
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, {"Export": handler}),)
            )

    async def traces(self, payload: bytes) -> Message:
        """Take spans; malformed ones are refused one by one and the rest is kept."""
        request = _parse(trace_service_pb2.ExportTraceServiceRequest, payload)
        count = sum(
            len(scope.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        if wait_s := retry_after_s(self._pending, count, self._most_pending):
            self._store.counts.refused_exports += 1
            raise unavailable("telemetry has too much to do; try again", retry_after_s=wait_s)
        self._pending += count
        try:
            if self._store.content.concerns(payload):
                self._store.content.clean_traces(request)
                payload = request.SerializeToString()
            rejected = await self._take_spans(request)
        finally:
            self._pending -= count
        self._store.forward("traces", payload)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = (
                "spans need a trace id of 16 bytes, a span id of 8, and an end not before the start"
            )
        return response

    async def _take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> int:
        store, window, rejected, taken = self._store, self._store.window, 0, 0
        for resource in request.resource_spans:
            source = window.source(_source(resource.resource))
            for scope in resource.scope_spans:
                now = store.clock.monotonic()
                for span in scope.spans:
                    if not _well_formed(span):
                        rejected += 1
                        continue
                    window.add(span, source, now)
                    taken += 1
                    if taken % SLICE == 0:
                        await asyncio.sleep(0)
        store.counts.spans += taken
        store.counts.rejected_spans += rejected
        return rejected

    async def metrics(self, payload: bytes) -> Message:
        """Take metric points, the malformed ones refused; exponential histograms and summaries are
        forwarded but not kept.
        """
        request = _parse(metrics_service_pb2.ExportMetricsServiceRequest, payload)
        rejected, foreign = 0, False
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                rejected += sum(remove_malformed_points(metric) for metric in scope.metrics)
                foreign = foreign or has_forward_only(scope.metrics)
            self._store.ingest_metrics(_source(resource.resource), resource.scope_metrics)
        self._store.forward("metrics", payload)
        response = metrics_service_pb2.ExportMetricsServiceResponse()
        said = [MALFORMED_POINTS] * bool(rejected) + [FORWARD_ONLY_POINTS] * foreign
        if said:
            response.partial_success.rejected_data_points = rejected
            response.partial_success.error_message = "; ".join(said)
        return response

    async def logs(self, payload: bytes) -> Message:
        """Take log records: counted and forwarded, without what people wrote; none is kept."""
        request = _parse(logs_service_pb2.ExportLogsServiceRequest, payload)
        if b"gen_ai." in payload:
            self._store.content.clean_logs(request)
            payload = request.SerializeToString()
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self._store.counts.log_records += len(scope.log_records)
        self._store.forward("logs", payload)
        return logs_service_pb2.ExportLogsServiceResponse()


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise invalid("", f"the request is not a {kind.DESCRIPTOR.full_name}") from None


def _source(resource: Resource) -> Source:
    said = plain_attributes(resource.attributes)
    service, instance = (
        str(said.get("service.name", "unknown_service")),
        str(said.get("service.instance.id", "")),
    )
    return Source(service, instance, str(said.get(names.HOST_BOOT_ID, "")))


def _well_formed(span: trace_pb2.Span) -> bool:
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and span.end_time_unix_nano >= span.start_time_unix_nano > 0
        and any(span.trace_id)
        and any(span.span_id)
    )


def _guarded(answer: Answer) -> Callable[[bytes, Any], Awaitable[Message]]:
    async def serve(payload: bytes, context: Any) -> Message:
        try:
            return await answer(payload)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status = rpc_status.to_status(to_rpc_status(to_fault(error)))
            await context.abort(status.code, status.details, status.trailing_metadata)
            raise internal("not reached") from None

    return serve
