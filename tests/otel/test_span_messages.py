"""Ended spans as OTLP messages, held against those that OpenTelemetry's SDK makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from penstock.otel import attributes as semconv
from penstock.otel.recorder import EndedSpan
from penstock.otel.span_messages import add_spans, put_attributes
from penstock.rpc.call import Call, Principal
from penstock.rpc.spans import Value

TRACE_ID, SPAN_ID, PARENT_ID = "a" * 32, "b" * 16, "c" * 16
OFFSET_NS = 1_000
SCHEMA = "https://example.org/schema"
SENDER: dict[str, str | int] = {"service.name": "test", "process.pid": 7}
CALL = Call(Principal("shop"), 2, run_id="run")
WHAT_THE_CALL_SAYS: dict[str, Value] = {
    semconv.TENANT: "shop",
    semconv.RUN: "run",
    semconv.PRIORITY: 2,
}
OWN: dict[str, Value] = {"text": "é", "whole": -(2**63), "part": 0.5, "yes": True, "no": False}
CONTEXT = SpanContext(int(TRACE_ID, 16), int(SPAN_ID, 16), False, TraceFlags(1))
PARENT = SpanContext(int(TRACE_ID, 16), int(PARENT_ID, 16), False, TraceFlags(1))


@dataclass(frozen=True)
class Case:
    """A span, and what the SDK's own span is made of."""

    ended: EndedSpan
    name: str
    kind: SpanKind
    parent: SpanContext | None
    status: Status
    attributes: dict[str, Value]


def _ended(name: str, kind: str, *, parent_id: str = PARENT_ID, code: str = "") -> EndedSpan:
    return EndedSpan(
        TRACE_ID, SPAN_ID, parent_id, name, kind, 10, 30, code, "", "", dict(OWN), CALL
    )


PLAIN = Case(
    _ended("route", "internal"),
    "route",
    SpanKind.INTERNAL,
    PARENT,
    Status(StatusCode.UNSET),
    OWN,
)
ROOT = Case(
    _ended("route", "internal", parent_id=""),
    "route",
    SpanKind.INTERNAL,
    None,
    Status(StatusCode.UNSET),
    OWN | WHAT_THE_CALL_SAYS,
)
SLOW = Case(
    _ended("route", "internal")._replace(kept_because="slow"),
    "route",
    SpanKind.INTERNAL,
    PARENT,
    Status(StatusCode.UNSET),
    {**OWN, semconv.KEPT: "slow", **WHAT_THE_CALL_SAYS},
)
FAILED_RPC = Case(
    _ended("a.v1.Shop/Buy", "server", parent_id="", code="UNAVAILABLE"),
    "Shop/Buy",
    SpanKind.SERVER,
    None,
    Status(StatusCode.ERROR, "UNAVAILABLE"),
    {
        **OWN,
        semconv.RPC_SYSTEM: "grpc",
        semconv.RPC_METHOD: "a.v1.Shop/Buy",
        semconv.RPC_STATUS: "UNAVAILABLE",
        semconv.ERROR_TYPE: "UNAVAILABLE",
        **WHAT_THE_CALL_SAYS,
    },
)


def _by_the_sdk(case: Case) -> ExportTraceServiceRequest:
    span = ReadableSpan(
        name=case.name,
        context=CONTEXT,
        parent=case.parent,
        resource=Resource(SENDER, SCHEMA),
        attributes=case.attributes,
        kind=case.kind,
        status=case.status,
        start_time=case.ended.start_ns + OFFSET_NS,
        end_time=case.ended.end_ns + OFFSET_NS,
        instrumentation_scope=InstrumentationScope("penstock", "0.1.0"),
    )
    return encode_spans([span])


@pytest.mark.parametrize(
    "case", [PLAIN, ROOT, SLOW, FAILED_RPC], ids=["plain", "root", "slow", "failed RPC"]
)
def test_a_span_is_sent_as_the_sdk_would_send_it(case: Case) -> None:
    sender = resource_pb2.Resource()
    put_attributes(sender.attributes, SENDER)
    request = ExportTraceServiceRequest()
    add_spans(request, [case.ended], sender, SCHEMA, OFFSET_NS)
    assert request == _by_the_sdk(case)


@pytest.mark.parametrize("value", ["half a pair \ud800", 2**64], ids=["surrogate", "too large"])
def test_an_attribute_that_no_message_can_hold_is_left_out(value: Value) -> None:
    sender = resource_pb2.Resource()
    put_attributes(sender.attributes, {"before": 1, "bad": value, "after": 2})
    assert [field.key for field in sender.attributes] == ["before", "after"]
