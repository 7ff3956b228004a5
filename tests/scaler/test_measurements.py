"""What a pool measures: samples from readings, lead times, capacity."""

from __future__ import annotations

import pytest
from penstock.scaler.decide.measurements import (
    CapacityEstimate,
    DemandMeter,
    LeadTimes,
    ServedInterval,
)
from penstock.scaler.forecast.features import Sample


def test_readings_become_samples_of_whole_intervals() -> None:
    meter = DemandMeter(60.0)
    samples = [
        sample for second in range(0, 200, 5) for sample in meter.read(10.0, 1.0, 1000.0 + second)
    ]
    assert [sample.start_s for sample in samples] == [960.0, 1020.0, 1080.0]
    assert all(abs(sample.work - 120.0) < 1e-6 and sample.backlog == 1.0 for sample in samples)


def test_work_of_a_pause_between_readings_is_spread_over_its_intervals() -> None:
    meter = DemandMeter(60.0)
    meter.read(0.0, 0.0, 1020.0)
    samples = meter.read(600.0, 0.0, 1320.0)
    assert samples == [Sample(1020.0 + 60.0 * step, 120.0) for step in range(5)]


def test_burst_is_the_rate_of_the_last_six_seconds() -> None:
    meter = DemandMeter(60.0)
    for second, work in ((0, 50.0), (5, 50.0)):
        meter.read(work, 0.0, 1000.0 + second)
    assert meter.burst == 0.0, "five seconds are less than the window"
    meter.read(150.0, 0.0, 1010.0)
    assert meter.burst == 20.0
    meter.read(0.0, 0.0, 1015.0)
    assert meter.burst == 15.0


def test_after_a_reset_the_next_reading_is_the_first() -> None:
    meter = DemandMeter(60.0)
    for second in (0, 10):
        meter.read(150.0, 0.0, 1000.0 + second)
    meter.reset()
    assert meter.burst == 0.0
    assert meter.read(9.0, 0.0, 2000.0) == []


def test_the_horizon_is_the_initial_lead_time_until_starts_are_measured() -> None:
    times = LeadTimes(180.0)
    assert times.horizon_s == 180.0
    for seconds in (20.0, 22.0, 25.0, 21.0, 60.0, 23.0, 24.0, 22.0, 21.0, 20.0, 26.0):
        times.record(seconds)
    assert 25.0 <= times.horizon_s <= 60.0


def test_capacity_follows_what_a_saturated_fleet_does() -> None:
    capacity = CapacityEstimate()
    for _ in range(60):
        capacity.observe(ServedInterval(100.0, 50.0, 100.0, ready=2, seconds=5.0), nominal=10.0)
    assert capacity.corrected(10.0) == pytest.approx(5.0, rel=0.05)


def test_a_fleet_without_backlog_does_not_show_its_capacity() -> None:
    capacity = CapacityEstimate()
    capacity.observe(ServedInterval(10.0, 0.0, 0.0, ready=2, seconds=5.0), nominal=10.0)
    assert capacity.corrected(10.0) == 10.0
