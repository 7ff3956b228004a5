"""Metrics of the machine: CPU and memory, and GPUs through a fake NVML."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest
from penstock.telemetry.detection.metric_detector import MetricDetector
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.ingest.host_metrics import Gpus, machine_metrics, record_host_metrics
from penstock.telemetry.store import TelemetryStore
from penstock.testkit.clock import FakeClock


def test_memory_is_read() -> None:
    values = {reading.metric: reading.value for reading in machine_metrics()}
    assert 0.0 <= values["system.memory.utilization"] <= 1.0
    assert values["system.memory.usage"] > 0


async def test_metrics_are_recorded_every_five_seconds_and_seen_by_detectors() -> None:
    clock = FakeClock(100.0)
    detector = MetricDetector()
    store = TelemetryStore(clock, 1 << 20, DetectionPipeline((detector,)))
    task = asyncio.create_task(record_host_metrics(store.record_host_metric, clock))
    await clock.advance(16.0)
    task.cancel()
    (memory,) = store.series.find("system.memory.utilization")
    assert len(memory.points) == 4
    (resident,) = store.series.find("process.memory.usage", "telemetry")
    assert resident.total > 1 << 20
    assert detector.metrics()["streams"] >= 4


class FakeNvml:
    """NVML with two GPUs, of which the second does not report its power."""

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


def test_gpus_are_read_by_number_and_what_one_does_not_report_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml)
    values = {(row.metric, row.labels[0][1]): row.value for row in Gpus().metrics()}
    assert values == {
        ("hw.gpu.utilization", "0"): 0.25,
        ("hw.gpu.utilization", "1"): 0.26,
        ("hw.gpu.memory.usage", "0"): float(1 << 30),
        ("hw.gpu.memory.usage", "1"): float(1 << 30),
        ("hw.power", "0"): 70.0,
    }


def test_a_machine_without_nvml_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert list(Gpus().metrics()) == []
