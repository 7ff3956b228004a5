"""OTLP spans and exports, made up, and a client that sends them."""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")


def otlp_span(
    number: int, parent: int = 0, trace_id: bytes = TRACE_ID, **attributes: str
) -> trace_pb2.Span:
    """A server span of about a second; `a__b="x"` is the attribute `a.b`."""
    span = trace_pb2.Span(
        trace_id=trace_id,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"span {number}",
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_000_000_000 + number,
        end_time_unix_nano=2_000_000_000 - number,
    )
    for key, value in attributes.items():
        span.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return span


def export_request(*spans: trace_pb2.Span, service: str = "app") -> otlp.ExportTraceServiceRequest:
    """An export of these spans by one service."""
    request = otlp.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.scope_spans.add().spans.extend(spans)
    return request


async def export(address: str, payload: bytes, **options: Any) -> otlp.ExportTraceServiceResponse:
    """Send a serialised export of traces; `options` are gRPC's for one call."""
    channel_options = (("grpc.max_send_message_length", -1),)
    async with grpc.aio.insecure_channel(address, options=channel_options) as channel:
        stub = channel.unary_unary(EXPORT, None, otlp.ExportTraceServiceResponse.FromString)
        response: otlp.ExportTraceServiceResponse = await stub(payload, **options)
        return response
