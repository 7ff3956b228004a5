"""The OTLP receiver: TraceService, MetricsService and LogsService of the OpenTelemetry collector
protocol, for any exporter.

Requests arrive as bytes: what is malformed is answered INVALID_ARGUMENT, and what is forwarded is
what came. The spans of a large export are taken in slices, so that queries are answered in between.
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
from penstock.otel import attributes as semconv
from penstock.rpc.errors import internal, invalid, to_fault, to_rpc_status, unavailable
from penstock.telemetry.ingest.metric_points import has_forward_only, remove_malformed_points
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.spans.spans import Source, plain_attributes
from penstock.telemetry.store import TelemetryStore

TRACE_SERVICE = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
METRICS_SERVICE = metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name
LOGS_SERVICE = logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"].full_name
SERVICE_NAMES = (TRACE_SERVICE, METRICS_SERVICE, LOGS_SERVICE)

MAX_EXPORT_BYTES = 64 << 20
"""Of one export, decompressed."""

SPANS_PER_SLICE = 500
"""Spans taken before other calls get their turn."""

RETRY_AFTER_S = 1.0

MALFORMED_SPANS = (
    "spans need a trace id of 16 bytes, a span id of 8, and an end not before the start"
)
MALFORMED_POINTS = (
    "points need a name, a finite value, and histograms one count more than rising bounds, "
    "adding up to the count"
)
FORWARD_ONLY_POINTS = "exponential histograms and summaries are forwarded but not kept"

M = TypeVar("M", bound=Message)
Export = Callable[[bytes], Awaitable[Message]]
Forward = Callable[[str, bytes], None]
"""Takes `traces`, `metrics` or `logs`, and a serialised export."""


class OtlpReceiver:
    """Takes exports into the store, and passes them on.

    Args:
        store: where spans and metrics are kept.
        content: whose content may stay.
        forward: takes every export after content was removed; None: nothing is passed on.
        max_pending_spans: spans in exports that are being taken; beyond it an export is refused.
    """

    def __init__(
        self,
        store: TelemetryStore,
        content: ContentPolicy,
        forward: Forward | None,
        max_pending_spans: int,
    ) -> None:
        self._store = store
        self._content = content
        self._forward = forward or _forward_nowhere
        self._max_pending_spans = max_pending_spans
        self._pending_spans = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the three services to a server."""
        for name, export in (
            (TRACE_SERVICE, self.export_traces),
            (METRICS_SERVICE, self.export_metrics),
            (LOGS_SERVICE, self.export_logs),
        ):
            method = grpc.unary_unary_rpc_method_handler(_serve(export), None, _serialize)
            handler = grpc.method_handlers_generic_handler(name, {"Export": method})
            server.add_generic_rpc_handlers((handler,))

    async def export_traces(self, payload: bytes) -> Message:
        """Take spans; malformed ones are rejected one by one and the others are kept.

        Raises:
            Fault: the payload is malformed, or too many spans are being taken.
        """
        request = _parse(trace_service_pb2.ExportTraceServiceRequest, payload)
        spans = sum(
            len(scope.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        if is_overloaded(self._pending_spans, spans, self._max_pending_spans):
            self._store.counts.refused_exports += 1
            raise unavailable(
                "telemetry has too much to do; try again", retry_after_s=RETRY_AFTER_S
            )
        self._pending_spans += spans
        try:
            if self._content.may_have_content(payload):
                self._content.clean_traces(request)
                payload = request.SerializeToString()
            rejected = await self._take_spans(request)
        finally:
            self._pending_spans -= spans
        self._forward("traces", payload)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = MALFORMED_SPANS
        return response

    async def _take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> int:
        """Store the spans of a request; returns how many were malformed."""
        store = self._store
        taken = rejected = 0
        for resource in request.resource_spans:
            source = store.window.source_number(_source(resource.resource))
            for scope in resource.scope_spans:
                now_s = store.clock.monotonic()
                for span in scope.spans:
                    if not _is_well_formed(span):
                        rejected += 1
                        continue
                    store.window.add(span, source, now_s)
                    taken += 1
                    if taken % SPANS_PER_SLICE == 0:
                        await asyncio.sleep(0)
        store.counts.spans += taken
        store.counts.rejected_spans += rejected
        return rejected

    async def export_metrics(self, payload: bytes) -> Message:
        """Take metric points; malformed ones are rejected one by one.

        Raises:
            Fault: the payload is malformed.
        """
        request = _parse(metrics_service_pb2.ExportMetricsServiceRequest, payload)
        rejected = 0
        some_not_kept = False
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                rejected += sum(remove_malformed_points(metric) for metric in scope.metrics)
                some_not_kept = some_not_kept or has_forward_only(scope.metrics)
            self._store.ingest_metrics(_source(resource.resource), resource.scope_metrics)
        self._forward("metrics", payload)
        messages = []
        if rejected:
            messages.append(MALFORMED_POINTS)
        if some_not_kept:
            messages.append(FORWARD_ONLY_POINTS)
        response = metrics_service_pb2.ExportMetricsServiceResponse()
        if messages:
            response.partial_success.rejected_data_points = rejected
            response.partial_success.error_message = "; ".join(messages)
        return response

    async def export_logs(self, payload: bytes) -> Message:
        """Count and forward log records, without content; none is kept.

        Raises:
            Fault: the payload is malformed.
        """
        request = _parse(logs_service_pb2.ExportLogsServiceRequest, payload)
        if b"gen_ai." in payload:
            self._content.clean_logs(request)
            payload = request.SerializeToString()
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self._store.counts.log_records += len(scope.log_records)
        self._forward("logs", payload)
        return logs_service_pb2.ExportLogsServiceResponse()


def is_overloaded(pending_spans: int, incoming_spans: int, max_pending_spans: int) -> bool:
    """Whether to refuse an export. One that is alone is taken, however large it is."""
    return pending_spans > 0 and pending_spans + incoming_spans > max_pending_spans


def _forward_nowhere(kind: str, payload: bytes) -> None:
    """Pass nothing on."""


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise invalid("", f"the request is not a {kind.DESCRIPTOR.full_name}") from None


def _source(resource: Resource) -> Source:
    attributes = plain_attributes(resource.attributes)
    return Source(
        str(attributes.get("service.name", "unknown_service")),
        str(attributes.get("service.instance.id", "")),
        str(attributes.get(semconv.HOST_BOOT_ID, "")),
    )


def _is_well_formed(span: trace_pb2.Span) -> bool:
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and span.end_time_unix_nano >= span.start_time_unix_nano > 0
        and any(span.trace_id)
        and any(span.span_id)
    )


def _serve(export: Export) -> Callable[[bytes, Any], Awaitable[Message]]:
    """A gRPC handler that turns exceptions into statuses."""

    async def serve(payload: bytes, context: Any) -> Message:
        try:
            return await export(payload)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status = rpc_status.to_status(to_rpc_status(to_fault(error)))
            await context.abort(status.code, status.details, status.trailing_metadata)
            raise internal("not reached") from None

    return serve


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
