"""The OTLP door over real gRPC: what a collector must do, with our own sender and with the upstream
exporter.
"""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.service.clock import SystemClock
from penstock.telemetry.export.forwarding import Forwarder

from .conftest import Running, running

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE = bytes.fromhex("0af7651916cd43dd8448eb211c80319c")


def request(*spans: trace_pb2.Span, service: str = "app") -> otlp.ExportTraceServiceRequest:
    made = otlp.ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.scope_spans.add().spans.extend(spans)
    return made


def made(number: int, parent: int = 0, trace: bytes = TRACE, **said: str) -> trace_pb2.Span:
    span = trace_pb2.Span(
        trace_id=trace,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"span {number}",
        kind=trace_pb2.Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_000_000_000 + number,
        end_time_unix_nano=2_000_000_000 - number,
    )
    for key, value in said.items():
        span.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return span


async def export(
    address: str, payload: bytes, **options: object
) -> otlp.ExportTraceServiceResponse:
    channel_options = (("grpc.max_send_message_length", -1),)
    async with grpc.aio.insecure_channel(address, options=channel_options) as channel:
        stub = channel.unary_unary(EXPORT, None, otlp.ExportTraceServiceResponse.FromString)
        answer: otlp.ExportTraceServiceResponse = await stub(payload, **options)  # type: ignore[misc]
        return answer


async def test_an_empty_export_succeeds_and_says_nothing(telemetry: Running) -> None:
    answer = await export(telemetry.address, b"")
    assert not answer.HasField("partial_success")


async def test_bad_spans_are_refused_one_by_one(telemetry: Running) -> None:
    bad = [made(2), made(3), made(4), made(5)]
    bad[0].trace_id = b"short"
    bad[1].span_id = bytes(8)
    bad[2].end_time_unix_nano = 1
    bad[3].trace_id = bytes(16)
    answer = await export(telemetry.address, request(made(1), *bad).SerializeToString())
    assert answer.partial_success.rejected_spans == 4
    assert "16 bytes" in answer.partial_success.error_message
    trace = await telemetry.peer.call("GetTrace", pb.GetTraceRequest(trace_id=TRACE.hex()), Call())
    assert [span.name for span in trace.spans] == ["span 1"]


async def test_bad_points_are_refused_one_by_one_and_what_is_not_kept_is_said(
    telemetry: Running,
) -> None:
    asked = metrics_service_pb2.ExportMetricsServiceRequest()
    scope = asked.resource_metrics.add().scope_metrics.add()
    gauge = scope.metrics.add(name="app.heat").gauge.data_points
    for value in (1.5, float("nan"), float("inf")):
        gauge.add(time_unix_nano=10**9, as_double=value)
    gauge.add(time_unix_nano=10**9)
    gauge.add(time_unix_nano=10**9, flags=1)
    scope.metrics.add().gauge.data_points.add(time_unix_nano=10**9, as_int=1)
    shapes = scope.metrics.add(name="app.wait").histogram.data_points
    for counts, bounds in (
        ([1, 2], [0.5]),
        ([1, 2, 3], [0.5]),
        ([1, 1, 1], [0.5, 0.1]),
        ([2, 2], [0.5]),
    ):
        shapes.add(
            time_unix_nano=10**9, count=3, sum=1.0, bucket_counts=counts, explicit_bounds=bounds
        )
    scope.metrics.add(name="app.odd").summary.data_points.add(time_unix_nano=10**9)
    async with grpc.aio.insecure_channel(telemetry.address) as channel:
        export_metrics = channel.unary_unary(
            EXPORT.replace("Trace", "Metrics").replace("trace", "metrics")
        )
        for _ in range(2):  # the second meets the state that the first left
            answer = metrics_service_pb2.ExportMetricsServiceResponse.FromString(
                await export_metrics(asked.SerializeToString())
            )
            assert answer.partial_success.rejected_data_points == 3 + 1 + 3
            assert "rising bounds" in answer.partial_success.error_message
            assert "summaries" in answer.partial_success.error_message
    for name, points in (("app.heat", 2), ("app.wait", 2), ("app.odd", 0), ("", 0)):
        found = await telemetry.peer.call("GetMetrics", pb.GetMetricsRequest(name=name), Call())
        assert sum(len(series.points) for series in found.series) == points, name


async def test_what_is_sent_twice_is_held_once(telemetry: Running) -> None:
    payload = request(made(1), made(2, 1)).SerializeToString()
    await export(telemetry.address, payload, compression=grpc.Compression.Gzip)
    await export(telemetry.address, payload)
    intake = await telemetry.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
    assert (intake.held_spans, intake.duplicate_spans) == (2, 2)


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x0a\x05ab"])
async def test_bytes_that_are_no_export_are_invalid(telemetry: Running, payload: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(telemetry.address, payload)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await export(telemetry.address, b"")).HasField("partial_success")


async def test_more_than_64_mib_unpacked_is_refused(telemetry: Running) -> None:
    payload = request(made(1, note="x" * (65 << 20))).SerializeToString()
    assert len(gzip.compress(payload, 1)) < 1 << 20
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(telemetry.address, payload, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_overload_says_when_to_try_again(tmp_path: Path) -> None:
    async with running(tmp_path, telemetry_pending_spans=1000) as service:
        traces = [n.to_bytes(16, "big") for n in range(1, 13)]
        payloads = [
            request(*(made(n, trace=trace) for n in range(1, 6001))).SerializeToString()
            for trace in traces
        ]
        ended = await asyncio.gather(
            *(export(service.address, one) for one in payloads), return_exceptions=True
        )
        refused = [error for error in ended if isinstance(error, grpc.aio.AioRpcError)]
        assert refused
        assert len(refused) < len(ended)
        assert {error.code() for error in refused} == {grpc.StatusCode.UNAVAILABLE}
        packed = dict(refused[0].trailing_metadata() or ())["grpc-status-details-bin"]
        details = status_pb2.Status.FromString(packed).details  # type: ignore[arg-type]
        assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
        intake = await service.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
        assert intake.refused_exports == len(refused)


async def test_content_is_removed_unless_its_tenant_asked_and_then_redacted(tmp_path: Path) -> None:
    text = "write to ann@example.org with Bearer abc.def and card 4111 1111 1111 1111"
    async with running(tmp_path, content_tenants="open") as service:
        for number, tenant in ((1, "open"), (2, "closed")):
            said = {"gen_ai__input__messages": text, "penstock__tenant": tenant}
            await export(service.address, request(made(number, **said)).SerializeToString())
        trace = await service.peer.call(
            "GetTrace", pb.GetTraceRequest(trace_id=TRACE.hex()), Call()
        )
        kept = {
            span.attributes["penstock.tenant"]: span.attributes.get("gen_ai.input.messages")
            for span in trace.spans
        }
        assert kept["closed"] is None
        assert kept["open"] == "write to [redacted] with [redacted] and card [redacted]"


async def test_our_own_sender_end_to_end(telemetry: Running) -> None:
    router = Telemetry("router", telemetry.address, interval_s=0.05)
    batcher = Telemetry("batcher", telemetry.address, interval_s=0.05)
    call = Call(Principal("acme"), run_id="run-7", step="plan")
    receipt = common_pb2.Receipt(request_id="r1", model="m")
    receipt.cost.paid_microusd, receipt.cost.full_price_microusd = 30, 100
    receipt.savings.add(technique="exact_cache", microusd=70, saved_ms=12.5)
    receipt.usage.input_tokens = 500
    with router.span("penstock.api.router.v1.RouterService/Embed", call, kind="server") as root:
        compute = "penstock.api.batcher.v1.BatcherService/Compute"
        with (
            router.span(compute, root.call, kind="client") as hop,
            batcher.span(compute, hop.call, kind="server") as served,
        ):
            served.set("rows", 3)
        root.receipt(receipt)
    await asyncio.gather(*(asyncio.to_thread(one.close) for one in (router, batcher)))
    found = await telemetry.peer.call("SearchTraces", pb.SearchTracesRequest(tenant="acme"), Call())
    (row,) = found.traces
    assert (row.name, row.run_id, row.step, row.model) == (
        "RouterService/Embed",
        "run-7",
        "plan",
        "m",
    )
    assert list(row.services) == ["batcher", "router"]
    assert (row.paid_microusd, row.saved_microusd) == (30, 70)
    trace = await telemetry.peer.call(
        "GetTrace", pb.GetTraceRequest(trace_id=row.trace_id[:8]), Call()
    )
    assert [span.depth for span in trace.spans] == [0, 1, 2]
    assert sum(part.duration_ns for part in trace.critical_path) == trace.spans[0].duration_ns
    assert (
        trace.spans[2].attributes["rpc.method"] == "penstock.api.batcher.v1.BatcherService/Compute"
    )
    savings = await telemetry.peer.call("GetSavings", pb.GetSavingsRequest(), Call())
    assert (savings.calls, savings.paid_microusd, savings.full_price_microusd) == (1, 30, 100)
    assert [(part.technique, part.microusd) for part in savings.rows] == [("exact_cache", 70)]
    assert (savings.unattributed_microusd, savings.unbalanced) == (0, 0)
    costs = await telemetry.peer.call("GetCosts", pb.GetCostsRequest(by=pb.COST_BY_RUN), Call())
    assert [(part.key, part.calls, part.paid_microusd) for part in costs.rows] == [("run-7", 1, 30)]
    assert [(part.technique, part.microusd) for part in costs.rows[0].savings] == [
        ("exact_cache", 70)
    ]
    overview = await telemetry.peer.call("GetOverview", pb.GetOverviewRequest(), Call())
    assert [part.service for part in overview.rows] == ["batcher", "router"]
    assert all(part.p99_ms > 0 and part.success == 1 for part in overview.rows)


async def test_queries_refuse_strangers_and_bad_questions(telemetry: Running) -> None:
    for question, asked in (
        ("GetTrace", pb.GetTraceRequest(trace_id="xyz")),
        ("GetTrace", pb.GetTraceRequest(trace_id="abc")),
        ("SearchTraces", pb.SearchTracesRequest(limit=5000)),
        ("GetCriticalPath", pb.GetCriticalPathRequest(from_percentile=80, to_percentile=20)),
        ("GetSavings", pb.GetSavingsRequest(window=pb.Window(from_unix_ms=10, to_unix_ms=5))),
    ):
        with pytest.raises(Fault) as caught:
            await telemetry.peer.call(question, asked, Call())
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.field
    with pytest.raises(Fault) as caught:
        await telemetry.peer.call("GetTrace", pb.GetTraceRequest(trace_id="ab" * 16), Call())
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_what_came_in_is_forwarded_and_survives_a_receiver_that_is_away(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "far") as far:
        async with running(tmp_path / "near", forward_endpoint="127.0.0.1:1") as near:
            await export(near.address, request(made(1)).SerializeToString())
            intake = await near.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
            assert (intake.forward_queue, intake.forwarded) == (1, 0)
        async with running(tmp_path / "near", forward_endpoint=far.address) as near:
            async with asyncio.timeout(10):
                while not (
                    await near.peer.call("GetIntake", pb.GetIntakeRequest(), Call())
                ).forwarded:
                    await asyncio.sleep(0.01)
        assert (await far.peer.call("GetIntake", pb.GetIntakeRequest(), Call())).spans == 1


async def test_content_in_events_and_logs_is_neither_kept_nor_forwarded(tmp_path: Path) -> None:
    text, secret = "write to ann@example.org", b"write to ann"
    span = made(1, penstock__tenant="closed")
    event = span.events.add(name="gen_ai.client.inference.operation.details")
    event.attributes.add(key="gen_ai.output.messages").value.string_value = text
    logs = logs_service_pb2.ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for tenant, name in (
        ("closed", "gen_ai.user.message"),
        ("open", "gen_ai.user.message"),
        ("closed", ""),
    ):
        record = records.add(event_name=name)
        record.attributes.add(key="penstock.tenant").value.string_value = tenant
        record.body.string_value = text if name else "a disk is full"
    async with running(tmp_path, content_tenants="open", forward_endpoint="127.0.0.1:1") as service:
        await export(service.address, request(span).SerializeToString())
        async with grpc.aio.insecure_channel(service.address) as channel:
            await channel.unary_unary(EXPORT.replace("Trace", "Logs").replace("trace", "logs"))(
                logs.SerializeToString()
            )
        queued = {
            path.name.partition("-")[2]: path.read_bytes()
            for path in (tmp_path / "forward").iterdir()
        }
    assert secret not in queued["traces.otlp"] and queued["logs.otlp"].count(secret) == 0
    assert (
        b"write to [redacted]" in queued["logs.otlp"] and b"a disk is full" in queued["logs.otlp"]
    )


async def test_a_full_queue_on_disk_drops_the_oldest_and_counts_it(tmp_path: Path) -> None:
    forwarder = Forwarder("127.0.0.1:1", tmp_path, 100, SystemClock())
    for number in range(5):
        forwarder.put("traces", bytes([number]) * 40)
    assert (forwarder.waiting, forwarder.dropped) == (2, 3)
    assert sorted(path.read_bytes()[0] for path in tmp_path.iterdir()) == [3, 4]
    await forwarder.close()
    again = Forwarder("127.0.0.1:1", tmp_path, 100, SystemClock())
    again.put("traces", b"x")
    assert again.waiting == 3 and len({path.name for path in tmp_path.iterdir()}) == 3
    await again.close()
