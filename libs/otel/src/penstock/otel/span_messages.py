"""Ended spans as OTLP messages. Pure.

They are made at once from what was recorded: by way of the SDK's own spans each takes twice as
long, and in development every call leaves a dozen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, SpanFlags, Status
from penstock.otel import attributes as semconv
from penstock.otel.background import background_kind
from penstock.otel.counts import AttributeValue
from penstock.otel.recorder import EndedSpan

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

log = logging.getLogger(__name__)

SCOPE = InstrumentationScope(name="penstock", version="0.1.0")
KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
}
FLAGS = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK


def add_spans(
    request: ExportTraceServiceRequest,
    spans: Iterable[EndedSpan],
    resource: Resource,
    schema_url: str,
    unix_offset_ns: int,
) -> None:
    """Add spans of one resource to an export; `unix_offset_ns` leads from their clock to Unix
    time.
    """
    of_resource = request.resource_spans.add(resource=resource, schema_url=schema_url)
    scope = of_resource.scope_spans.add(scope=SCOPE)
    for ended in spans:
        _add(scope, ended, unix_offset_ns)


def _add(scope: ScopeSpans, ended: EndedSpan, unix_offset_ns: int) -> None:
    span = scope.spans.add(
        trace_id=bytes.fromhex(ended.trace_id),
        span_id=bytes.fromhex(ended.span_id),
        parent_span_id=bytes.fromhex(ended.parent_id),
        name=ended.name.rpartition(".")[2] if "/" in ended.name else ended.name,
        kind=KINDS[ended.kind],
        start_time_unix_nano=ended.start_ns + unix_offset_ns,
        end_time_unix_nano=ended.end_ns + unix_offset_ns,
        flags=FLAGS,
    )
    if ended.code:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = ended.code
    else:
        span.status.code = Status.STATUS_CODE_UNSET
    put_attributes(span.attributes, _attributes(ended))


def put_attributes(
    fields: RepeatedCompositeFieldContainer[KeyValue], values: Mapping[str, AttributeValue]
) -> None:
    """Add attributes; one that no message can hold, such as half a surrogate pair or an integer of
    more than 64 bits, is left out.
    """
    for name, value in values.items():
        field = fields.add()  # An argument for the name would take longer than all that follows.
        try:
            field.key = name
            _put(field.value, value)
        except ValueError:
            del fields[-1]
            log.debug("attribute %s of a span cannot be sent", name)


def _put(into: AnyValue, value: AttributeValue) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value


def _attributes(ended: EndedSpan) -> dict[str, AttributeValue]:
    """The span's own attributes, with what its call and its result say."""
    call = ended.call
    attributes: dict[str, AttributeValue] = dict(ended.attributes or {})
    if "/" in ended.name and ended.kind != "internal":
        attributes[semconv.RPC_SYSTEM] = "grpc"
        attributes[semconv.RPC_METHOD] = ended.name
        attributes[semconv.RPC_STATUS] = ended.code or "OK"
    if kind := background_kind(ended.name):
        attributes[semconv.BACKGROUND] = kind
    if ended.code:
        attributes[semconv.ERROR_TYPE] = ended.reason or ended.code
    if ended.kept_because:
        attributes[semconv.KEPT] = ended.kept_because
    elif ended.kind != "server" and ended.parent_id:
        return attributes  # the server's span of the same service says whose call it is
    whose = (
        (semconv.TENANT, call.principal.organisation),
        (semconv.RUN, call.run_id),
        (semconv.STEP, call.step),
    )
    attributes.update(each for each in whose if each[1])
    attributes[semconv.PRIORITY] = call.priority
    return attributes
