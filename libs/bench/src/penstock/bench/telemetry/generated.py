"""Generated traces like the stack's own, and exports of them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2

SPANS_PER_TRACE = 8
EXPORT_SPANS = 500
SERVICES = ("router", "router", "router", "batcher", "batcher", "batcher", "inference", "inference")
KINDS = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
    trace_pb2.Span.SPAN_KIND_CLIENT,
)


def generated_trace(
    rng: random.Random, spans: int = SPANS_PER_TRACE
) -> list[tuple[trace_pb2.Span, str]]:
    """A trace like the stack's own, each span with its service.

    Calls are nested, some children run in parallel or end after their parent, some spans failed.
    """
    trace_id = rng.randbytes(16)
    now_ns = time.time_ns()
    trace: list[tuple[trace_pb2.Span, str]] = []
    for number in range(spans):
        parent = trace[rng.randrange(max(0, number - 3), number)][0] if number else None
        span = _generated_span(rng, number, parent, now_ns)
        span.trace_id = trace_id
        trace.append((span, SERVICES[number % len(SERVICES)]))
    return trace


def _generated_span(
    rng: random.Random, number: int, parent: trace_pb2.Span | None, now_ns: int
) -> trace_pb2.Span:
    earliest_ns = parent.start_time_unix_nano if parent else now_ns
    latest_ns = parent.end_time_unix_nano if parent else now_ns + rng.randrange(1, 50_000_000)
    start_ns = rng.randrange(earliest_ns, latest_ns + 1)
    end_ns = rng.randrange(start_ns, latest_ns + 1)
    if parent and rng.random() < 0.1:
        end_ns += rng.randrange(1_000_000)
    span = trace_pb2.Span(
        span_id=rng.randbytes(8),
        parent_span_id=parent.span_id if parent else b"",
        name=f"Service{number % 4}/Do",
        kind=KINDS[number % 3],
        start_time_unix_nano=start_ns if parent else earliest_ns,
        end_time_unix_nano=end_ns if parent else latest_ns,
    )
    for key, value in (
        ("rpc.system.name", "grpc"),
        ("rpc.method", f"penstock.api.x.v1.Service{number % 4}/Do"),
        ("rpc.response.status_code", "OK"),
        ("penstock.tenant", f"tenant-{rng.randrange(20)}"),
        ("penstock.run.id", f"run-{rng.randrange(1000)}"),
    ):
        span.attributes.add(key=key).value.string_value = value
    if rng.random() < 0.02:
        span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    return span


def exports(rng: random.Random, spans: int, size: int = EXPORT_SPANS) -> Iterator[bytes]:
    """Serialised OTLP exports of whole traces, about `size` spans each."""
    request = otlp.ExportTraceServiceRequest()
    in_request = 0
    for _ in range(spans // SPANS_PER_TRACE):
        by_service: dict[str, list[trace_pb2.Span]] = {}
        for span, service in generated_trace(rng):
            by_service.setdefault(service, []).append(span)
        for service, members in by_service.items():
            resource = request.resource_spans.add()
            resource.resource.attributes.add(key="service.name").value.string_value = service
            resource.scope_spans.add().spans.extend(members)
        in_request += SPANS_PER_TRACE
        if in_request >= size:
            yield request.SerializeToString()
            request = otlp.ExportTraceServiceRequest()
            in_request = 0
    if in_request:
        yield request.SerializeToString()
