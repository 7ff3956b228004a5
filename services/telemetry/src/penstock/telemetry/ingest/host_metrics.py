"""Figures of the machine and of this process: processor, its pressure, memory, and GPUs where NVML
finds some. Reads only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from penstock.otel.process_metrics import ProcessMetrics
from penstock.service.clock import Clock
from penstock.telemetry.detection.cpu_pressure import NEAR_S, CpuPressure
from penstock.telemetry.window.series_key import SeriesKey

EVERY_S = 5.0
PRESSURE = Path("/proc/pressure/cpu")
SERVICE = "host"
OWN = "telemetry"
Reading = tuple[str, str, float, tuple[tuple[str, str], ...]]


def machine_metrics() -> Iterator[Reading]:
    """(metric, unit, value, labels) of processor and memory."""
    memory = psutil.virtual_memory()
    yield "system.cpu.utilization", "1", psutil.cpu_percent() / 100, ()
    yield "system.memory.usage", "By", float(memory.total - memory.available), ()
    yield "system.memory.utilization", "1", memory.percent / 100, ()
    yield "system.network.io", "By", float(sum(psutil.net_io_counters()[:2])), ()


class Gpus:
    """GPU figures through NVML; none on a machine without."""

    def __init__(self) -> None:
        self._handles: list[object] = []
        with contextlib.suppress(
            Exception
        ):  # no library, no driver and no GPU all mean the same here
            import pynvml

            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def read(self) -> Iterator[Reading]:
        """Use, memory and power of each GPU."""
        if not self._handles:
            return
        import pynvml

        for index, handle in enumerate(self._handles):
            labels = (("gpu", str(index)),)
            with contextlib.suppress(pynvml.NVMLError):
                yield (
                    "hw.gpu.utilization",
                    "1",
                    pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                    labels,
                )
                yield (
                    "hw.gpu.memory.usage",
                    "By",
                    float(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
                    labels,
                )
                yield "hw.power", "W", pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, labels


def cpu_wait_s(path: Path = PRESSURE) -> float | None:
    """Seconds since the start in which some task waited for a processor, as the kernel counts them;
    None where it does not.
    """
    try:
        first = path.read_text().splitlines()[0]
        return int(first.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


Write = Callable[[SeriesKey, str, float, float], None]
"""Takes a series, its unit, the Unix time and the value."""


async def record_host_metrics(write: Write, clock: Clock) -> None:
    """Write the machine's figures every few seconds, for ever."""
    gpus, own = Gpus(), list(ProcessMetrics().gauges())
    while True:
        for metric, unit, value, labels in (*machine_metrics(), *gpus.read()):
            write(SeriesKey(SERVICE, metric, labels), unit, clock.time(), value)
        for metric, unit, _, read in own:
            write(SeriesKey(OWN, metric), unit, clock.time(), read())
        await clock.sleep(EVERY_S)


async def record_cpu_pressure(
    pressure: CpuPressure, write: Write, clock: Clock, path: Path = PRESSURE
) -> None:
    """Read how long tasks wait for a processor, as often as the kernel adds it up, for ever; at
    once over where it does not.
    """
    while (total := cpu_wait_s(path)) is not None:
        share = pressure.add(clock.time(), total)
        write(SeriesKey(SERVICE, "system.cpu.pressure"), "1", clock.time(), share)
        await clock.sleep(NEAR_S)
