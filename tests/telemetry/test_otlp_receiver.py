"""The OTLP receiver over real gRPC: what a collector must do, for any exporter."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call

from .conftest import RunningTelemetry, running
from .otlp import EXPORT, TRACE_ID, export, export_request, otlp_span

EXPORT_METRICS = EXPORT.replace("Trace", "Metrics").replace("trace", "metrics")
EXPORT_LOGS = EXPORT.replace("Trace", "Logs").replace("trace", "logs")


@pytest.mark.fault(26)
async def test_an_empty_export_succeeds(telemetry: RunningTelemetry) -> None:
    response = await export(telemetry.address, b"")
    assert not response.HasField("partial_success")


@pytest.mark.fault(26)
async def test_malformed_spans_are_rejected_and_the_others_kept(
    telemetry: RunningTelemetry,
) -> None:
    malformed = [otlp_span(2), otlp_span(3), otlp_span(4), otlp_span(5)]
    malformed[0].trace_id = b"short"
    malformed[1].span_id = bytes(8)
    malformed[2].end_time_unix_nano = 1
    malformed[3].trace_id = bytes(16)
    request = export_request(otlp_span(1), *malformed)
    response = await export(telemetry.address, request.SerializeToString())
    assert response.partial_success.rejected_spans == 4
    assert "16 bytes" in response.partial_success.error_message
    trace = await telemetry.peer.call(
        "GetTrace", pb.GetTraceRequest(trace_id=TRACE_ID.hex()), Call()
    )
    assert [span.name for span in trace.spans] == ["span 1"]


def points_good_and_bad() -> metrics_service_pb2.ExportMetricsServiceRequest:
    """Three malformed gauge values, one point without a name, three malformed histograms, and a
    summary; beside them two good values and one good histogram.
    """
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    gauge = scope.metrics.add(name="app.heat").gauge.data_points
    for value in (1.5, float("nan"), float("inf")):
        gauge.add(time_unix_nano=10**9, as_double=value)
    gauge.add(time_unix_nano=10**9)  # no value
    gauge.add(time_unix_nano=10**9, flags=1)  # says that it has no value: not malformed
    scope.metrics.add().gauge.data_points.add(time_unix_nano=10**9, as_int=1)
    histogram = scope.metrics.add(name="app.wait").histogram.data_points
    for counts, bounds in (
        ([1, 2], [0.5]),
        ([1, 2, 3], [0.5]),
        ([1, 1, 1], [0.5, 0.1]),
        ([2, 2], [0.5]),
    ):
        histogram.add(
            time_unix_nano=10**9, count=3, sum=1.0, bucket_counts=counts, explicit_bounds=bounds
        )
    scope.metrics.add(name="app.odd").summary.data_points.add(time_unix_nano=10**9)
    return request


async def test_malformed_points_are_rejected_and_the_others_kept(
    telemetry: RunningTelemetry,
) -> None:
    payload = points_good_and_bad().SerializeToString()
    async with grpc.aio.insecure_channel(telemetry.address) as channel:
        export_metrics = channel.unary_unary(EXPORT_METRICS)
        for _ in range(2):  # the second export meets the series that the first made
            response = metrics_service_pb2.ExportMetricsServiceResponse.FromString(
                await export_metrics(payload)
            )
            assert response.partial_success.rejected_data_points == 3 + 1 + 3
            assert "rising bounds" in response.partial_success.error_message
            assert "summaries" in response.partial_success.error_message
    for name, points in (("app.heat", 2), ("app.wait", 2), ("app.odd", 0)):
        found = await telemetry.peer.call("GetMetrics", pb.GetMetricsRequest(name=name), Call())
        assert sum(len(series.points) for series in found.series) == points, name


@pytest.mark.fault(26)
async def test_a_span_that_is_sent_twice_is_held_once(telemetry: RunningTelemetry) -> None:
    payload = export_request(otlp_span(1), otlp_span(2, 1)).SerializeToString()
    await export(telemetry.address, payload, compression=grpc.Compression.Gzip)
    await export(telemetry.address, payload)
    intake = await telemetry.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    assert (intake.held_spans, intake.duplicate_spans) == (2, 2)


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x0a\x05ab"])
async def test_bytes_that_are_no_export_are_invalid(
    telemetry: RunningTelemetry, payload: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(telemetry.address, payload)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await export(telemetry.address, b"")).HasField("partial_success")


@pytest.mark.fault(26)
async def test_more_than_64_mib_decompressed_is_refused(telemetry: RunningTelemetry) -> None:
    payload = export_request(otlp_span(1, note="x" * (65 << 20))).SerializeToString()
    assert len(gzip.compress(payload, 1)) < 1 << 20
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(telemetry.address, payload, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.fault(26)
async def test_an_overloaded_service_refuses_and_says_when_to_retry(tmp_path: Path) -> None:
    payloads = [
        export_request(
            *(otlp_span(n, trace_id=trace.to_bytes(16, "big")) for n in range(1, 6001))
        ).SerializeToString()
        for trace in range(1, 13)
    ]
    async with running(tmp_path, telemetry_pending_spans=1000) as service:
        results = await asyncio.gather(
            *(export(service.address, payload) for payload in payloads), return_exceptions=True
        )
        intake = await service.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert 0 < len(refused) < len(results)
    assert {error.code() for error in refused} == {grpc.StatusCode.UNAVAILABLE}
    packed = dict(refused[0].trailing_metadata() or ())["grpc-status-details-bin"]
    details = status_pb2.Status.FromString(packed).details
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    assert intake.refused_exports == len(refused)


async def test_content_is_removed_unless_its_tenant_opted_in_and_then_redacted(
    tmp_path: Path,
) -> None:
    text = "write to ann@example.org with Bearer abc.def and card 4111 1111 1111 1111"
    async with running(tmp_path, content_tenants="open") as service:
        for number, tenant in ((1, "open"), (2, "closed")):
            span = otlp_span(number, gen_ai__input__messages=text, penstock__tenant=tenant)
            await export(service.address, export_request(span).SerializeToString())
        trace = await service.peer.call(
            "GetTrace", pb.GetTraceRequest(trace_id=TRACE_ID.hex()), Call()
        )
    content = {
        span.attributes["penstock.tenant"]: span.attributes.get("gen_ai.input.messages")
        for span in trace.spans
    }
    assert content["closed"] is None
    assert content["open"] == "write to [redacted] with [redacted] and card [redacted]"


def logs_with_content(text: str) -> logs_service_pb2.ExportLogsServiceRequest:
    """A model's message of a tenant that opted in and of one that did not, and another record."""
    request = logs_service_pb2.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for tenant, event, body in (
        ("closed", "gen_ai.user.message", text),
        ("open", "gen_ai.user.message", text),
        ("closed", "", "a disk is full"),
    ):
        record = records.add(event_name=event)
        record.attributes.add(key="penstock.tenant").value.string_value = tenant
        record.body.string_value = body
    return request


async def test_content_in_events_and_logs_is_not_forwarded(tmp_path: Path) -> None:
    text = "write to ann@example.org"
    span = otlp_span(1, penstock__tenant="closed")
    event = span.events.add(name="gen_ai.client.inference.operation.details")
    event.attributes.add(key="gen_ai.output.messages").value.string_value = text
    async with running(tmp_path, content_tenants="open", forward_endpoint="127.0.0.1:1") as service:
        await export(service.address, export_request(span).SerializeToString())
        async with grpc.aio.insecure_channel(service.address) as channel:
            await channel.unary_unary(EXPORT_LOGS)(logs_with_content(text).SerializeToString())
        queued = {
            path.name.partition("-")[2]: path.read_bytes()
            for path in (tmp_path / "forward").iterdir()
        }
    assert b"ann@" not in queued["traces.otlp"]
    assert b"ann@" not in queued["logs.otlp"]
    assert queued["logs.otlp"].count(b"write to [redacted]") == 1
    assert b"a disk is full" in queued["logs.otlp"]
