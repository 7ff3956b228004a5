"""Taking exports of OpenTelemetry into the store, whichever protocol brought them.

What is malformed is rejected item by item and said so in the response's `partial_success`; the
others are kept. The spans of a large export are taken in slices, so that queries are answered in
between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as semconv
from penstock.rpc.errors import unavailable
from penstock.telemetry.ingest.metric_points import has_forward_only, remove_malformed_points
from penstock.telemetry.ingest.reading import ReadExport
from penstock.telemetry.spans.redaction import ContentPolicy
from penstock.telemetry.spans.spans import Source, plain_attributes, text_of
from penstock.telemetry.store import TelemetryStore

MAX_EXPORT_BYTES = 64 << 20
"""Of one export, decompressed."""

SPANS_PER_SLICE = 500
"""Spans taken before other calls get their turn."""

RETRY_AFTER_S = 1.0
NO_TRACE_ID, NO_SPAN_ID = bytes(16), bytes(8)
"""W3C Trace Context: identifiers of zeros are invalid."""

MALFORMED_SPANS = (
    "spans need a trace id of 16 bytes, a span id of 8, an end not before the start, and text in "
    "UTF-8"
)
MALFORMED_POINTS = (
    "points need a name, a finite value, text in UTF-8, and histograms one count more than rising "
    "bounds, adding up to the count"
)
MALFORMED_RECORDS = "log records need text in UTF-8"
FORWARD_ONLY_POINTS = "summaries are forwarded but not kept"

Forward = Callable[[str, bytes], None]
"""Takes `traces`, `metrics` or `logs`, and a serialised export."""


class ExportReceiver:
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
        self._forward = forward
        self._max_pending_spans = max_pending_spans
        self._pending_spans = 0

    async def take_traces(
        self, export: ReadExport[trace_service_pb2.ExportTraceServiceRequest]
    ) -> Message:
        """Take spans; malformed ones are rejected one by one and the others are kept.

        Raises:
            Fault: too many spans are being taken.
        """
        request = export.message
        spans = sum(
            len(scope.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )
        if self._store.window.is_full or is_overloaded(
            self._pending_spans, spans, self._max_pending_spans
        ):
            self._store.counts.refused_exports += 1
            raise unavailable(
                "telemetry has too much to do; try again", retry_after_s=RETRY_AFTER_S
            )
        self._pending_spans += spans
        try:
            rejected = export.unreadable + await self._take_spans(request)
        finally:
            self._pending_spans -= spans
        self._store.counts.rejected_spans += rejected
        self._pass_on("traces", request)
        response = trace_service_pb2.ExportTraceServiceResponse()
        if rejected:
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = MALFORMED_SPANS
        return response

    async def _take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> int:
        """Remove content from the spans of a request, and store them; returns how many were
        malformed.
        """
        store, content = self._store, self._content
        taken = rejected = 0
        for resource in request.resource_spans:
            tenant = content.clean_resource(resource.resource)
            source = store.window.source_number(_source(resource.resource))
            for scope in resource.scope_spans:
                content.clean_scope(scope.scope)
                now_s = store.clock.monotonic()
                for span in scope.spans:
                    attributes = content.clean_span(span, tenant)
                    if not _is_well_formed(span):
                        rejected += 1
                        continue
                    store.window.add(span, source, now_s, attributes)
                    taken += 1
                    if taken % SPANS_PER_SLICE == 0:
                        await asyncio.sleep(0)
        store.counts.spans += taken
        return rejected

    async def take_metrics(
        self, export: ReadExport[metrics_service_pb2.ExportMetricsServiceRequest]
    ) -> Message:
        """Take metric points; malformed ones are rejected one by one."""
        request = export.message
        self._content.clean_metrics(request)
        self._pass_on("metrics", request)
        rejected = export.unreadable
        some_not_kept = False
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                rejected += sum(remove_malformed_points(metric) for metric in scope.metrics)
                some_not_kept = some_not_kept or has_forward_only(scope.metrics)
            self._store.ingest_metrics(
                _source(resource.resource), resource.scope_metrics, _texts(resource.resource)
            )
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

    async def take_logs(
        self, export: ReadExport[logs_service_pb2.ExportLogsServiceRequest]
    ) -> Message:
        """Count and forward log records, without content; none is kept."""
        request = export.message
        self._content.clean_logs(request)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self._store.counts.log_records += len(scope.log_records)
        self._pass_on("logs", request)
        response = logs_service_pb2.ExportLogsServiceResponse()
        if export.unreadable:
            response.partial_success.rejected_log_records = export.unreadable
            response.partial_success.error_message = MALFORMED_RECORDS
        return response

    def _pass_on(self, kind: str, request: Message) -> None:
        if self._forward is not None:
            self._forward(kind, request.SerializeToString())


Take = Callable[[ReadExport[Any]], Awaitable[Message]]


@dataclass(frozen=True)
class Signal:
    """One of OTLP's signals: how its exports come, and what takes them."""

    service: str
    """Full name of the gRPC service."""
    path: str
    """Of OTLP over HTTP."""
    request: type[Message]
    take: Take


def signals(receiver: ExportReceiver) -> tuple[Signal, ...]:
    """Every signal that is taken."""
    return (
        _signal(trace_service_pb2, "Trace", "traces", receiver.take_traces),
        _signal(metrics_service_pb2, "Metrics", "metrics", receiver.take_metrics),
        _signal(logs_service_pb2, "Logs", "logs", receiver.take_logs),
    )


def _signal(module: Any, name: str, path: str, take: Take) -> Signal:
    service = module.DESCRIPTOR.services_by_name[f"{name}Service"].full_name
    request = getattr(module, f"Export{name}ServiceRequest")
    return Signal(service, f"/v1/{path}", request, take)


def is_overloaded(pending_spans: int, incoming_spans: int, max_pending_spans: int) -> bool:
    """Whether to refuse an export. One that is alone is taken, however large it is."""
    return pending_spans > 0 and pending_spans + incoming_spans > max_pending_spans


def _texts(resource: Resource) -> dict[str, str]:
    attributes = plain_attributes(resource.attributes)
    return {name: text_of(value) for name, value in attributes.items()}


def _source(resource: Resource) -> Source:
    attributes = plain_attributes(resource.attributes)
    return Source(
        str(attributes.get("service.name") or "unknown_service"),
        str(attributes.get("service.instance.id", "")),
        str(attributes.get(semconv.HOST_BOOT_ID, "")),
    )


def _is_well_formed(span: trace_pb2.Span) -> bool:
    trace_id, span_id = span.trace_id, span.span_id
    return (
        len(trace_id) == 16
        and len(span_id) == 8
        and span.end_time_unix_nano >= span.start_time_unix_nano > 0
        and trace_id != NO_TRACE_ID
        and span_id != NO_SPAN_ID
    )
