"""Figures of the machine: processor, memory, and GPUs where NVML finds some. Reads only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
from penstock.core.clock import Clock
from penstock.telemetry.detection import SeriesKey
from penstock.telemetry.series import SeriesWindow

EVERY_S = 5.0
SERVICE = "host"
Reading = tuple[str, str, float, tuple[tuple[str, str], ...]]


def machine() -> Iterator[Reading]:
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
        with contextlib.suppress(Exception):  # no library, no driver and no GPU all mean the same here
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
                yield "hw.gpu.utilization", "1", pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, labels
                yield "hw.gpu.memory.usage", "By", float(pynvml.nvmlDeviceGetMemoryInfo(handle).used), labels
                yield "hw.power", "W", pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, labels


async def watch_host(window: SeriesWindow, clock: Clock) -> None:
    """Write the machine's figures every few seconds, for ever."""
    gpus = Gpus()
    while True:
        for metric, unit, value, labels in (*machine(), *gpus.read()):
            window.write(SeriesKey(SERVICE, metric, labels), "", unit, clock.time(), value)
        await clock.sleep(EVERY_S)
