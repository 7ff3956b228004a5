"""CPU pressure: a request that is slow because the machine is short of CPUs is no anomaly, one that
is slower than that explains is.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from penstock.telemetry.detection.cpu_pressure import CpuPressure
from penstock.telemetry.detection.group_state import (
    MAX_SAMPLE_GAP_S,
    SAMPLE_SIZE,
    RequestSample,
)
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.ingest.host_metrics import cpu_wait_s, record_cpu_pressure
from penstock.telemetry.spans.spans import Source
from penstock.telemetry.window.settled_traces import SettledRequest
from penstock.testkit.clock import FakeClock

from .requests import feed, settled_request

HOST = "boot-1"
INSTANCE = Source("inference", "inference-1", HOST)
START_S = 1e9


def pressure_of(share: float, from_s: float, to_s: float) -> CpuPressure:
    """Readings of 400 s after START_S, with this share of time waited in a part of them."""
    pressure = CpuPressure(HOST)
    waited_s = 0.0
    for second in range(0, 400, 2):
        waited_s += 2.0 * (share if from_s <= second < to_s else 0.0)
        pressure.add(START_S + second, waited_s)
    return pressure


def slowdown_at(pressure: CpuPressure, second: float, host: str = HOST) -> float:
    return pressure.slowdown(host, START_S + second, START_S + second + 0.1)


def test_waiting_slows_work_down_while_it_lasts() -> None:
    pressure = pressure_of(0.5, 300.0, 350.0)
    assert slowdown_at(pressure, 320.0) == pytest.approx(2.0)
    assert slowdown_at(pressure, 280.0) == pytest.approx(1.0)


def test_the_readings_beside_a_moment_count_too() -> None:
    assert slowdown_at(pressure_of(0.5, 300.0, 350.0), 300.5) == pytest.approx(2.0)


def test_no_more_than_a_factor_of_twenty_is_explained() -> None:
    assert slowdown_at(pressure_of(1.0, 300.0, 350.0), 320.0) == pytest.approx(20.0)


def test_nothing_is_known_of_other_and_unnamed_hosts() -> None:
    assert slowdown_at(pressure_of(0.5, 300.0, 350.0), 320.0, host="boot-2") == 1.0
    unnamed = CpuPressure("")
    assert unnamed.slowdown("", START_S, START_S) == 1.0


@pytest.mark.parametrize(
    ("share", "times_slower", "is_found"),
    [(0.0, 2.0, True), (0.6, 2.0, False), (0.6, 5.0, True)],
    ids=["slow on a calm host", "slow for want of CPUs", "slower than that explains"],
)
def test_what_cpu_pressure_explains_is_no_anomaly(
    share: float, times_slower: float, is_found: bool
) -> None:
    rng = random.Random(2)
    detector = RequestDetector(pressure_of(share, 300.0, 400.0))

    def requests(mean_ms: float, from_s: float, count: int) -> list[SettledRequest]:
        return [
            settled_request(
                from_s + 0.3 * n, mean_ms * rng.lognormvariate(0.0, 0.2), instance=INSTANCE
            )
            for n in range(count)
        ]

    feed(detector, requests(10.0, 0.0, 1000))
    findings = feed(detector, requests(10.0 * times_slower, 301.0, 200))
    assert any(finding.service == "inference" for finding in findings) is is_found


def test_the_kernels_counter_is_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "cpu"
    path.write_text(
        "some avg10=1.00 avg60=1.00 avg300=1.00 total=2500000\n"
        "full avg10=0 avg60=0 avg300=0 total=0\n"
    )
    assert cpu_wait_s(path) == 2.5


async def test_without_a_readable_counter_nothing_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "cpu"
    path.write_text("nonsense")
    assert cpu_wait_s(path) is None
    assert cpu_wait_s(tmp_path / "missing") is None
    recorded: list[object] = []
    await record_cpu_pressure(
        CpuPressure(HOST), lambda *row: recorded.append(row), FakeClock(START_S), path
    )
    assert recorded == []


def test_a_sample_spans_half_an_hour_however_busy_the_group_is() -> None:
    sample = RequestSample()
    gap_s = 0.05
    for number in range(100_000):
        sample.offer((float(number),), 0.0, number * gap_s)
    assert len(sample.values) <= SAMPLE_SIZE
    assert sample.gap_s == MAX_SAMPLE_GAP_S
    span_s = (sample.values[-1][0] - sample.values[0][0]) * gap_s
    assert span_s == pytest.approx(MAX_SAMPLE_GAP_S * (SAMPLE_SIZE - 1), rel=0.05)
