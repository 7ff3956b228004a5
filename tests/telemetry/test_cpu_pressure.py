"""What a host's shortage of processors explains: slower while tasks wait is no incident, much
slower than that is one.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from penstock.telemetry.detection.cpu_pressure import CpuPressure
from penstock.telemetry.detection.group_state import MAX_SAMPLE_GAP_S, SAMPLE_SIZE, RequestSample
from penstock.telemetry.detection.request_detector import RequestDetector
from penstock.telemetry.ingest.host_metrics import cpu_wait_s, record_cpu_pressure
from penstock.telemetry.spans.spans import Source
from penstock.telemetry.window.settled import SettledRequest
from penstock.testkit.clock import FakeClock

from .test_request_detector import feed, seen

HOST = Source("inference", "inference-1", "boot-1")
BEGAN_S = 1e9


def pressed(share: float, from_s: float, to_s: float, host: str = "boot-1") -> CpuPressure:
    pressure, waited = CpuPressure(host), 0.0
    for at in range(0, 400, 2):
        waited += 2.0 * (share if from_s <= at < to_s else 0.0)
        pressure.add(BEGAN_S + at, waited)
    return pressure


def test_a_share_of_waiting_stretches_work_and_only_then_and_there() -> None:
    pressure = pressed(0.5, 300.0, 350.0)
    assert pressure.slowdown("boot-1", BEGAN_S + 320.0, BEGAN_S + 320.1) == pytest.approx(2.0)
    assert pressure.slowdown("boot-1", BEGAN_S + 280.0, BEGAN_S + 280.1) == pytest.approx(1.0)
    assert pressure.slowdown("boot-1", BEGAN_S + 300.5, BEGAN_S + 300.6) == pytest.approx(2.0), (
        "the kernel's step is coarse"
    )
    assert pressure.slowdown("boot-2", BEGAN_S + 320.0, BEGAN_S + 320.1) == 1.0
    assert CpuPressure("").slowdown("", BEGAN_S, BEGAN_S) == 1.0, (
        "two that say nothing are not on one machine"
    )
    assert pressed(1.0, 300.0, 350.0).slowdown(
        "boot-1", BEGAN_S + 320.0, BEGAN_S + 320.1
    ) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("share", "times", "found"),
    [(0.0, 2.0, True), (0.6, 2.0, False), (0.6, 5.0, True)],
    ids=["slow on a calm host", "slow for want of processors", "slower than that explains"],
)
def test_what_the_host_explains_is_no_incident(share: float, times: float, found: bool) -> None:
    rng, detector = random.Random(2), RequestDetector(pressed(share, 300.0, 400.0))

    def taking(ms: float, from_s: float, count: int) -> list[SettledRequest]:
        return [
            seen(from_s + 0.3 * n, ms * rng.lognormvariate(0.0, 0.2), instance=HOST)
            for n in range(count)
        ]

    feed(detector, taking(10.0, 0.0, 1000))
    slow = taking(10.0 * times, 301.0, 200)
    assert bool([one for one in feed(detector, slow) if one.service == "inference"]) is found


async def test_the_kernels_count_is_read_as_long_as_there_is_one(tmp_path: Path) -> None:
    path, clock, pressure = tmp_path / "cpu", FakeClock(BEGAN_S), CpuPressure("boot-1")
    path.write_text(
        "some avg10=1.00 avg60=1.00 avg300=1.00 total=2500000\nfull avg10=0 avg60=0 avg300=0 "
        "total=0\n"
    )
    assert cpu_wait_s(path) == 2.5
    assert cpu_wait_s(tmp_path / "none") is None
    path.write_text("nonsense")
    assert cpu_wait_s(path) is None
    await record_cpu_pressure(pressure, lambda *_: None, clock, path)


def test_a_sample_spans_half_an_hour_however_busy_the_group_is() -> None:
    sample = RequestSample()
    for number in range(100_000):
        sample.take((float(number),), 0.0, number * 0.05)
    assert len(sample.values) <= SAMPLE_SIZE and sample.gap_s == MAX_SAMPLE_GAP_S
    assert (sample.values[-1][0] - sample.values[0][0]) * 0.05 == pytest.approx(
        MAX_SAMPLE_GAP_S * (SAMPLE_SIZE - 1), rel=0.05
    )
