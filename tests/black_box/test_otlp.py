"""OTLP into telemetry from any exporter: what is taken, refused one by one, dropped, left out."""

from __future__ import annotations

import asyncio
import secrets
import time
import urllib.request
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
SECOND = 1_000_000_000


def said(**attributes: str) -> list[KeyValue]:
    return [
        KeyValue(key=key.replace("__", "."), value=AnyValue(string_value=value))
        for key, value in attributes.items()
    ]


class Foreign:
    """Somebody else's service that exports spans of one trace."""

    def __init__(self, api: Api) -> None:
        self.api, self.trace_id = api, secrets.token_bytes(16)
        self.begun = time.time_ns() - 10 * SECOND

    def span(
        self, name: str, start_s: float, end_s: float, parent: Span | None = None, **fields: Any
    ) -> Span:
        return Span(
            trace_id=self.trace_id,
            span_id=secrets.token_bytes(8),
            name=name,
            parent_span_id=parent.span_id if parent else b"",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=self.begun + int(start_s * SECOND),
            end_time_unix_nano=self.begun + int(end_s * SECOND),
            **fields,
        )

    async def export(self, *spans: Span) -> Any:
        request = trace_service_pb2.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.extend(said(service__name="their-shop"))
        resource.scope_spans.add().spans.extend(spans)
        stub = trace_service_pb2_grpc.TraceServiceStub(self.api.channels["telemetry"])
        return await stub.Export(request)

    async def trace(self) -> pb.GetTraceResponse:
        request = pb.GetTraceRequest(trace_id=self.trace_id.hex())
        return await self.api.telemetry.GetTrace(request, metadata=self.api.token)


@pytest.fixture
def foreign(api: Api) -> Foreign:
    return Foreign(api)


async def test_a_foreign_trace_is_shown_with_its_critical_path_and_its_errors_origin(
    foreign: Foreign,
) -> None:
    root = foreign.span("checkout", 0.0, 1.0, status=Status(code=Status.STATUS_CODE_ERROR))
    fast = foreign.span("stock", 0.1, 0.2, root)
    slow = foreign.span("pay", 0.2, 0.9, root, status=Status(code=Status.STATUS_CODE_ERROR))
    await foreign.export(slow, fast)
    await foreign.export(root)
    shown = await foreign.trace()
    assert [(row.name, row.depth) for row in shown.spans] == [
        ("checkout", 0),
        ("stock", 1),
        ("pay", 1),
    ]
    assert {row.service for row in shown.spans} == {"their-shop"}
    assert [row.error for row in shown.spans] == ["ERROR", "", "ERROR"]
    assert shown.error_origin_span_id == slow.span_id.hex()
    # 0.1 before anything, 0.1 for the stock, 0.7 for paying, 0.1 at the end
    seconds = {row.name: round(row.critical_ns / SECOND, 6) for row in shown.spans}
    assert seconds == {"checkout": 0.2, "stock": 0.1, "pay": 0.7}
    assert (shown.summary.duration_ms, shown.summary.spans) == (1000.0, 3)


async def test_malformed_spans_are_refused_one_by_one_and_the_rest_is_kept(
    foreign: Foreign,
) -> None:
    good = foreign.span("good", 0.0, 1.0)
    backwards = foreign.span("backwards", 1.0, 0.5)
    nameless = Span(trace_id=foreign.trace_id, span_id=b"short", name="x")
    answer = await foreign.export(good, backwards, nameless)
    assert answer.partial_success.rejected_spans == 2
    assert [row.name for row in (await foreign.trace()).spans] == ["good"]


async def test_a_span_that_comes_twice_is_kept_once(foreign: Foreign) -> None:
    one = foreign.span("once", 0.0, 1.0)

    async def duplicates() -> int:
        answer = await foreign.api.telemetry.GetIntake(
            pb.GetIntakeRequest(), metadata=foreign.api.token
        )
        return answer.duplicate_spans

    await foreign.export(one)
    before = await duplicates()
    await foreign.export(one)
    assert await duplicates() == before + 1
    assert len((await foreign.trace()).spans) == 1


@pytest.mark.parametrize(("tenant", "kept"), [("their-tenant", False), ("content", True)])
async def test_what_people_wrote_stays_only_where_their_tenant_asked_for_it(
    foreign: Foreign, tenant: str, kept: bool
) -> None:
    words = said(penstock__tenant=tenant, gen_ai__input__messages="my card is lost")
    await foreign.export(foreign.span("chat", 0.0, 1.0, attributes=words))
    (row,) = (await foreign.trace()).spans
    assert ("gen_ai.input.messages" in row.attributes) == kept
    assert row.attributes["penstock.tenant"] == tenant


async def test_bytes_that_are_no_export_are_refused(api: Api) -> None:
    for name in ("trace.v1.Trace", "metrics.v1.Metrics", "logs.v1.Logs"):
        path = f"/opentelemetry.proto.collector.{name}Service/Export"
        told = await refused(api.channels["telemetry"].unary_unary(path)(b"\xff\xff"))
        assert told.code == "INVALID_ARGUMENT"


async def test_a_foreign_metric_becomes_a_series_and_prometheus_text(api: Api) -> None:
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.extend(said(service__name="their-shop"))
    point = NumberDataPoint(
        as_double=21.5, time_unix_nano=time.time_ns(), attributes=said(basin="upper")
    )
    broken = NumberDataPoint(as_double=float("nan"), time_unix_nano=time.time_ns())
    metric = Metric(name="their.level", unit="m", gauge=Gauge(data_points=[point, broken]))
    resource.scope_metrics.add().metrics.append(metric)
    stub = metrics_service_pb2_grpc.MetricsServiceStub(api.channels["telemetry"])
    answer = await stub.Export(request)
    assert answer.partial_success.rejected_data_points == 1
    asked = pb.GetMetricsRequest(name="their.level", service="their-shop")
    (series,) = (await api.telemetry.GetMetrics(asked, metadata=api.token)).series
    assert (series.name, series.unit, series.kind) == ("their.level", "m", "gauge")
    assert dict(series.labels)["basin"] == "upper"
    assert [row.value for row in series.points] == [21.5]

    def scraped() -> str:
        url = f"http://{api.system.addresses['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read(), "utf-8")

    async def told() -> None:
        lines = (await asyncio.to_thread(scraped)).splitlines()
        (line,) = [line for line in lines if line.startswith("their_level")]
        assert 'basin="upper"' in line
        assert line.endswith(" 21.5")

    await eventually(told)


async def test_log_records_are_counted(api: Api) -> None:
    request = logs_service_pb2.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for number in range(3):
        records.add().body.string_value = f"line {number}"
    before = await api.telemetry.GetIntake(pb.GetIntakeRequest(), metadata=api.token)
    stub = logs_service_pb2_grpc.LogsServiceStub(api.channels["telemetry"])
    await stub.Export(request)
    after = await api.telemetry.GetIntake(pb.GetIntakeRequest(), metadata=api.token)
    assert after.log_records == before.log_records + 3
