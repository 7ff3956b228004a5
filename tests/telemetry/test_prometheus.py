"""Prometheus text: names, types, buckets, exemplars where asked for, the door; and that the
dashboards ask for what is there.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.service.clock import SystemClock
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.export.prometheus import PrometheusPort, prometheus_name, render
from penstock.telemetry.ingest.host_metrics import Gpus, machine_metrics, record_host_metrics
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.series import SeriesWindow
from penstock.telemetry.window.series_key import SeriesKey
from penstock.testkit.clock import FakeClock

BOARDS = sorted((Path(__file__).parents[2] / "deploy" / "dashboards").glob("*.json"))
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
EXPORTED = {
    "rpc_server_call_duration_seconds",
    "rpc_client_call_duration_seconds",
    "penstock_span_duration_seconds",
    "penstock_telemetry_dropped_spans_total",
    "penstock_router_picks_total",
    "penstock_incidents_open",
    "penstock_batcher_batch_size",
    "penstock_batcher_queue_wait_milliseconds",
    *(f"penstock_batcher_depth_{name}" for name in ("critical", "high", "normal", "low")),
    *(
        f"penstock_batcher_oldest_age_{name}_seconds"
        for name in ("critical", "high", "normal", "low")
    ),
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
    point.attributes.add(
        key="rpc.method"
    ).value.string_value = "penstock.api.router.v1.RouterService/Embed"
    return metric


def filled() -> SeriesWindow:
    window = SeriesWindow()
    list(window.take("router", 'one "quoted"\n', histogram([3, 0, 2, 1], [0.1, 0.2, 0.5])))
    window.write(SeriesKey("host", "system.cpu.utilization"), "", "1", 1.0, 0.25)
    return window


def test_buckets_add_up_and_labels_are_escaped() -> None:
    text = render(filled().all(), {}, open_metrics=False)
    counts = [int(found) for found in re.findall(r"_bucket\{.*\} (\d+)$", text, re.MULTILINE)]
    assert counts == [3, 5, 6], "empty buckets are left out, the last holds all"
    assert 'le="+Inf"' in text and "rpc_server_call_duration_seconds_sum" in text
    assert r"one \"quoted\"\n" in text
    assert "# TYPE system_cpu_utilization_ratio gauge\nsystem_cpu_utilization_ratio" in text
    assert "# EOF" not in text


def test_open_metrics_carries_the_exemplar_in_its_bucket_alone() -> None:
    exemplars = {
        ("router", "RouterService/Embed"): ("ab" * 16, 0.4, 7.0),
        ("router", "Embed"): ("cd" * 16, 0.4, 7.0),
    }
    text = render(filled().all(), exemplars, open_metrics=True)
    (marked,) = [line for line in text.splitlines() if "trace_id" in line]
    assert 'le="0.5"' in marked and "ab" * 16 in marked
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (("a.b", "s", "histogram"), "a_b_seconds"),
        (("a.b", "By", "sum"), "a_b_bytes_total"),
        (("penstock.x_total", "", "sum"), "penstock_x_total"),
        (("a-b.c", "{thing}", "gauge"), "a_b_c"),
    ],
)
def test_names_are_those_that_scrapers_expect(told: tuple[str, str, str], name: str) -> None:
    assert prometheus_name(*told) == name


async def asked(port: int, head: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_door_answers_scrapers_and_nobody_else() -> None:
    store = TelemetryStore(SystemClock(), 1 << 20)
    store.series.write(SeriesKey("host", "system.cpu.utilization"), "", "1", 1.0, 0.25)
    served = PrometheusPort("127.0.0.1:0", store)
    await served.start()
    port = int(served.address.rpartition(":")[2])
    try:
        assert b"system_cpu_utilization_ratio" in await asked(
            port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        plain = await asked(
            port, "GET /metrics?x=1 HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n"
        )
        assert plain.endswith(b"# EOF\n")
        assert b"404" in (await asked(port, "GET /other HTTP/1.1\r\n\r\n")).splitlines()[0]
        assert b"405" in (await asked(port, "POST /metrics HTTP/1.1\r\n\r\n")).splitlines()[0]
    finally:
        await served.stop()


def queries(board: object) -> Iterator[str]:
    if isinstance(board, dict):
        yield from (str(value) for key, value in board.items() if key == "expr")
        for value in board.values():
            yield from queries(value)
    elif isinstance(board, list):
        for value in board:
            yield from queries(value)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.name)
def test_a_dashboard_asks_only_for_what_is_exported(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    found = list(queries(board))
    assert found and board["uid"] and board["title"]
    for query in found:
        for name in re.findall(
            r"\b(?:rpc_\w+seconds\w*|penstock_(?!tenant|technique|span\b)\w+|system_\w+|process_\w+|hw_\w+)",
            query,
        ):
            assert re.sub(r"_(bucket|count|sum)$", "", name) in EXPORTED, f"{path.name}: {name}"


async def test_the_machine_is_read_and_written_down() -> None:
    readings = {name: value for name, _, value, _ in machine_metrics()}
    assert (
        0.0 <= readings["system.memory.utilization"] <= 1.0 and readings["system.memory.usage"] > 0
    )
    assert all(name.startswith("hw.") for name, _, _, _ in Gpus().read())
    clock = FakeClock(100.0)
    store = TelemetryStore(clock, 1 << 20, detectors=(MetricDetector(),))
    task = asyncio.create_task(record_host_metrics(store.record_host_metric, clock))
    await clock.advance(16.0)
    task.cancel()
    assert len(store.series.find("system.memory.utilization")[0].points) == 4
    (resident,) = store.series.find("process.memory.usage", "telemetry")
    assert resident.total > 1 << 20
    assert store.detectors[0].state()["streams"] >= 4, (
        "the machine's figures are watched as any sender's"
    )


class Nvml:
    """NVML with two GPUs, one of which does not say what it draws."""

    class NVMLError(Exception):
        pass

    @staticmethod
    def nvmlInit() -> None:
        pass

    @staticmethod
    def nvmlDeviceGetCount() -> int:
        return 2

    @staticmethod
    def nvmlDeviceGetHandleByIndex(index: int) -> int:
        return index

    @staticmethod
    def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=25 + handle)

    @staticmethod
    def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=1 << 30)

    @classmethod
    def nvmlDeviceGetPowerUsage(cls, handle: int) -> int:
        if handle:
            raise cls.NVMLError
        return 70_000


def test_gpus_are_read_each_by_its_number_and_what_one_does_not_say_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml)
    read = {(name, labels[0][1]): value for name, _, value, labels in Gpus().read()}
    assert read["hw.gpu.utilization", "0"] == 0.25 and read["hw.gpu.utilization", "1"] == 0.26
    assert read["hw.gpu.memory.usage", "1"] == float(1 << 30)
    assert read["hw.power", "0"] == 70.0 and ("hw.power", "1") not in read
