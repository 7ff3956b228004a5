"""Metrics of this machine and of this process: CPU and its pressure, memory, network, GPUs.

GPUs are read through NVML, where there is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from penstock.otel.process_metrics import ProcessMetrics
from penstock.service.clock import Clock, next_tick
from penstock.telemetry.detection.cpu_pressure import READ_INTERVAL_S, CpuPressure
from penstock.telemetry.window.series import SeriesKey

INTERVAL_S = 5.0
CPU_PRESSURE_FILE = Path("/proc/pressure/cpu")
HOST_SERVICE = "host"
OWN_SERVICE = "telemetry"

Record = Callable[[SeriesKey, str, float, float], None]
"""Takes a series, its unit, the Unix time in seconds and the value."""


class Reading(NamedTuple):
    """One metric of the machine."""

    metric: str
    unit: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def machine_metrics() -> Iterator[Reading]:
    """CPU, memory and network."""
    memory = psutil.virtual_memory()
    network = psutil.net_io_counters()
    yield Reading("system.cpu.utilization", "1", psutil.cpu_percent() / 100)
    yield Reading("system.memory.usage", "By", float(memory.total - memory.available))
    yield Reading("system.memory.utilization", "1", memory.percent / 100)
    yield Reading("system.network.io", "By", float(network.bytes_sent + network.bytes_recv))


class Gpus:
    """GPU metrics through NVML; none on a machine without."""

    def __init__(self) -> None:
        self._handles: list[object] = []
        # Without the library, the driver or a GPU there is nothing to read, whatever the error.
        with contextlib.suppress(Exception):
            import pynvml

            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def metrics(self) -> Iterator[Reading]:
        """Utilization, memory and power of each GPU; what a GPU does not report is left out."""
        if not self._handles:
            return
        import pynvml

        for index, handle in enumerate(self._handles):
            labels = (("gpu", str(index)),)
            with contextlib.suppress(pynvml.NVMLError):
                utilization = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                yield Reading("hw.gpu.utilization", "1", utilization, labels)
                used_bytes = float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
                yield Reading("hw.gpu.memory.usage", "By", used_bytes, labels)
                watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
                yield Reading("hw.power", "W", watts, labels)


def cpu_wait_s(path: Path = CPU_PRESSURE_FILE) -> float | None:
    """Seconds in which some task waited for a CPU, as the kernel counts them since the start.

    None where the kernel does not.
    """
    try:
        first_line = path.read_text().splitlines()[0]
        return int(first_line.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


async def record_host_metrics(record: Record, clock: Clock) -> None:
    """Record metrics of the machine and of this process; runs until it is cancelled."""
    gpus = Gpus()
    own_gauges = list(ProcessMetrics().gauges())
    while True:
        for reading in (*machine_metrics(), *gpus.metrics()):
            series = SeriesKey(HOST_SERVICE, reading.metric, reading.labels)
            record(series, reading.unit, clock.time(), reading.value)
        for gauge in own_gauges:
            record(SeriesKey(OWN_SERVICE, gauge.name), gauge.unit, clock.time(), gauge.read())
        await next_tick(clock, INTERVAL_S)


async def record_cpu_pressure(
    pressure: CpuPressure, record: Record, clock: Clock, path: Path = CPU_PRESSURE_FILE
) -> None:
    """Read and record CPU pressure until it is cancelled; returns at once where the kernel has no
    such counter.
    """
    while (waited_s := cpu_wait_s(path)) is not None:
        now_s = clock.time()
        share = pressure.add(now_s, waited_s)
        record(SeriesKey(HOST_SERVICE, "system.cpu.pressure"), "1", now_s, share)
        await next_tick(clock, READ_INTERVAL_S)
