"""Case 29 and its kind: text that is not UTF-8 costs the item that holds it, and nothing beside."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from penstock.rpc.errors import Fault
from penstock.telemetry.ingest.reading import read_json, read_protobuf

from .exports import Intake, counter, export_of

pytestmark = pytest.mark.standard_case(29)
TRACES = trace_service_pb2.ExportTraceServiceRequest
MARK = b"MARK"
BROKEN = b"\xff\xfe!!"


def spans(*names: str, service: str = "app") -> bytes:
    """A serialised export of spans of one trace, of which `MARK` can be broken."""
    request = TRACES()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    for number, name in enumerate(names, start=1):
        scope.spans.add(
            trace_id=b"t" * 16,
            span_id=number.to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=1,
            end_time_unix_nano=2,
        )
    return request.SerializeToString()


async def test_a_span_with_one_invalid_byte_is_rejected_alone() -> None:
    intake = Intake()
    response = await intake.traces(spans("a", "MARK", "c").replace(MARK, BROKEN))
    assert response.partial_success.rejected_spans == 1
    assert "UTF-8" in response.partial_success.error_message
    assert [span.name for span in intake.store.window.spans(b"t" * 16)] == ["a", "c"]
    assert intake.store.counts.rejected_spans == 1


async def test_a_resource_with_an_invalid_byte_is_repaired_and_its_spans_kept() -> None:
    intake = Intake()
    response = await intake.traces(spans("a", "b", service="MARK").replace(MARK, BROKEN))
    assert not response.HasField("partial_success")
    services = {span.source.service for span in intake.store.window.spans(b"t" * 16)}
    assert services == {"\ufffd\ufffd!!"}


async def test_a_metric_point_with_an_invalid_byte_is_rejected_alone() -> None:
    intake = Intake()
    metric = counter("calls", 1, host="one")
    metric.sum.data_points.add(time_unix_nano=1, as_int=2).attributes.add(
        key="host"
    ).value.string_value = "MARK"
    request = export_of(metric, counter("others", 5))
    response = await intake.metrics_payload(request.SerializeToString().replace(MARK, BROKEN))
    assert response.partial_success.rejected_data_points == 1
    assert intake.store.series.metric_names() == ["calls", "others"]
    assert [dict(one.key.labels) for one in intake.store.series.find("calls")] == [{"host": "one"}]


async def test_a_log_record_with_an_invalid_byte_is_rejected_alone() -> None:
    request = logs_service_pb2.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for text in ("fine", "MARK"):
        records.add().body.string_value = text
    intake = Intake()
    response = await intake.logs(request.SerializeToString().replace(MARK, BROKEN))
    assert response.partial_success.rejected_log_records == 1
    assert intake.store.counts.log_records == 1


def test_bytes_that_are_no_message_are_refused_whole() -> None:
    with pytest.raises(Fault, match=r"not a .*ExportTraceServiceRequest"):
        read_protobuf(TRACES, b"\xff\xff\xff")


def json_span(number: int, name: str) -> dict[str, object]:
    return {
        "traceId": "74" * 16,
        "spanId": f"{number:016x}",
        "name": name,
        "kind": 2,
        "startTimeUnixNano": "1000",
        "endTimeUnixNano": "2000",
        "unknownField": {"is": "ignored"},
    }


def json_export(*items: dict[str, object]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": items}]}]}).encode()


def test_json_has_identifiers_in_hexadecimal_and_numbers_as_text() -> None:
    read = read_json(TRACES, json_export(json_span(1, "ä")))
    (span,) = read.message.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id, span.span_id) == (b"t" * 16, (1).to_bytes(8, "big"))
    assert (span.name, span.kind, span.end_time_unix_nano) == ("ä", 2, 2000)
    assert read.unreadable == 0


@pytest.mark.parametrize("bad", ["\ud800", "\udcff"])
def test_a_json_span_with_a_lone_surrogate_is_given_up_alone(bad: str) -> None:
    read = read_json(TRACES, json_export(json_span(1, "a"), json_span(2, bad), json_span(3, "c")))
    spans = read.message.resource_spans[0].scope_spans[0].spans
    assert ([span.name for span in spans], read.unreadable) == (["a", "c"], 1)


def test_json_with_an_invalid_byte_loses_that_span_alone() -> None:
    payload = json_export(json_span(1, "a"), json_span(2, "MARK")).replace(MARK, BROKEN)
    read = read_json(TRACES, payload)
    assert ([span.name for span in read.message.resource_spans[0].scope_spans[0].spans]) == ["a"]
    assert read.unreadable == 1


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"resourceSpans": 3}', b"\xff"])
def test_what_is_no_json_export_is_refused(payload: bytes) -> None:
    with pytest.raises(Fault, match="JSON encoding"):
        read_json(TRACES, payload)
