"""Prometheus text: names, types, buckets, exemplars where asked for; the port; and dashboards that
query only what is exported.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.hosting.http_port import HttpPort
from penstock.service.clock import SystemClock
from penstock.telemetry.export.exposition import Page, prometheus_name, render
from penstock.telemetry.export.prometheus import metrics_app
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.series import Exemplar, SeriesKey, SeriesWindow

DASHBOARDS = sorted((Path(__file__).parents[2] / "deploy" / "dashboards").glob("*.json"))
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
PRIORITIES = ("critical", "high", "normal", "low")
EXPORTED = {
    "rpc_server_call_duration_seconds",
    "rpc_client_call_duration_seconds",
    "penstock_span_duration_seconds",
    "penstock_telemetry_dropped_spans_total",
    "penstock_router_picks_total",
    "penstock_incidents_open",
    "penstock_batcher_batch_size",
    "penstock_batcher_queue_wait_milliseconds",
    *(f"penstock_batcher_depth_{name}" for name in PRIORITIES),
    *(f"penstock_batcher_oldest_age_{name}_seconds" for name in PRIORITIES),
    "penstock_limiter_decisions_total",
    "penstock_limiter_open_holds",
    "penstock_limiter_overshoot_bound",
    "penstock_ledger_paid",
    "penstock_ledger_full_price",
    "penstock_ledger_saved",
    "penstock_anomaly_streams",
    "penstock_anomaly_streams_ready",
    "penstock_anomaly_groups",
    "penstock_anomaly_groups_fitted",
    "penstock_anomaly_stream_alerts",
    "penstock_anomaly_request_alerts",
    "system_cpu_pressure_ratio",
    "process_cpu_utilization_ratio",
    "process_memory_usage_bytes",
    "system_cpu_utilization_ratio",
    "system_memory_utilization_ratio",
    "hw_gpu_utilization_ratio",
}
METRIC_IN_QUERY = re.compile(
    r"\b(?:rpc_\w+seconds\w*|penstock_(?!tenant|technique|span\b)\w+|system_\w+|process_\w+|hw_\w+)"
)


def histogram(counts: list[int], bounds: list[float]) -> metrics_pb2.Metric:
    metric = metrics_pb2.Metric(name="rpc.server.call.duration", unit="s")
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(
        time_unix_nano=10**9,
        count=sum(counts),
        sum=1.5,
        bucket_counts=counts,
        explicit_bounds=bounds,
    )
    method = point.attributes.add(key="rpc.method")
    method.value.string_value = "penstock.api.router.v1.RouterService/Embed"
    return metric


@pytest.fixture
def series() -> SeriesWindow:
    """A histogram and a gauge."""
    window = SeriesWindow()
    metric = histogram([3, 0, 2, 1], [0.1, 0.2, 0.5])
    list(window.record("router", 'one "quoted"\n', metric, 1.0))
    window.record_gauge(SeriesKey("host", "system.cpu.utilization"), "", "1", 1.0, 0.25)
    return window


def test_buckets_are_cumulative_and_all_bounds_shown(series: SeriesWindow) -> None:
    text = render(Page(series.all()))
    counts = [int(found) for found in re.findall(r"_bucket\{.*\} (\d+)$", text, re.MULTILINE)]
    assert counts == [3, 3, 5, 6]
    assert 'le="+Inf"' in text
    assert "rpc_server_call_duration_seconds_sum" in text


def test_every_metric_has_its_type_and_labels_are_escaped(series: SeriesWindow) -> None:
    text = render(Page(series.all()))
    assert "# TYPE system_cpu_utilization_ratio gauge\nsystem_cpu_utilization_ratio{" in text
    assert r"one \"quoted\"\n" in text
    assert "# EOF" not in text


def test_open_metrics_has_the_exemplar_in_its_bucket_alone(series: SeriesWindow) -> None:
    exemplars = {
        ("router", "RouterService/Embed"): Exemplar("ab" * 16, 0.4, 7.0),
        ("router", "Embed"): Exemplar("cd" * 16, 0.4, 7.0),
    }
    text = render(Page(series.all(), exemplars=exemplars, open_metrics=True))
    (marked,) = [line for line in text.splitlines() if "trace_id" in line]
    assert 'le="0.5"' in marked
    assert "ab" * 16 in marked
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (("a.b", "s", "histogram"), "a_b_seconds"),
        (("a.b", "By", "sum"), "a_b_bytes_total"),
        (("penstock.x_total", "", "sum"), "penstock_x_total"),
        (("a-b.c", "{thing}", "gauge"), "a_b_c"),
    ],
)
def test_a_metric_has_the_name_that_scrapers_expect(
    metric: tuple[str, str, str], name: str
) -> None:
    assert prometheus_name(*metric) == name


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A port that serves one gauge."""
    store = TelemetryStore(SystemClock(), 1 << 20)
    store.series.record_gauge(SeriesKey("host", "system.cpu.utilization"), "", "1", 1.0, 0.25)
    serving = HttpPort("127.0.0.1:0", metrics_app(store))
    await serving.start()
    yield int(serving.address.rpartition(":")[2])
    await serving.stop()


async def response(port: int, head: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
    content = await reader.read()
    writer.close()
    return content


async def test_a_scraper_gets_text(port: int) -> None:
    page = await response(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"system_cpu_utilization_ratio" in page
    assert not page.endswith(b"# EOF\n")


async def test_a_scraper_that_accepts_open_metrics_gets_it(port: int) -> None:
    head = "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n"
    assert (await response(port, head)).endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_line", "status"), [("GET /other", b"404"), ("POST /metrics", b"405")]
)
async def test_any_other_request_is_refused(port: int, request_line: str, status: bytes) -> None:
    page = await response(port, f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status in page.splitlines()[0]


def queries(part: object) -> Iterator[str]:
    """Every Prometheus query in a dashboard."""
    if isinstance(part, dict):
        yield from (str(value) for key, value in part.items() if key == "expr")
        for value in part.values():
            yield from queries(value)
    elif isinstance(part, list):
        for value in part:
            yield from queries(value)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_queries_only_what_is_exported(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    assert dashboard["uid"]
    assert dashboard["title"]
    found = list(queries(dashboard))
    assert found
    for query in found:
        for name in METRIC_IN_QUERY.findall(query):
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            assert family in EXPORTED, f"{path.name}: {name}"
