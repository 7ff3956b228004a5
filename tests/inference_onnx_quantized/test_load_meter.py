"""The load of an instance: requests in flight, busy slots, service times."""

from __future__ import annotations

import pytest
from penstock.inference_onnx_quantized.compute_threads import LoadMeter


def test_requests_that_do_not_compute_yet_are_queued() -> None:
    meter = LoadMeter(concurrency=2)
    meter.add(3)
    meter.start_slot(0.0)
    assert (meter.in_flight, meter.running, meter.queued) == (3, 1, 2)
    meter.end_slot(1.0, 1.0)
    meter.remove(3)
    assert (meter.in_flight, meter.running, meter.queued) == (0, 0, 0)


def test_utilization_is_the_busy_share_of_all_slots_since_the_last_report() -> None:
    meter = LoadMeter(concurrency=2)
    meter.start_slot(0.0)
    assert meter.utilization(1.0) == pytest.approx(0.5)
    meter.end_slot(1.5, 1.5)
    assert meter.utilization(2.0) == pytest.approx(0.25)
    assert meter.utilization(3.0) == 0.0


def test_the_service_time_is_the_median_of_recent_tasks() -> None:
    meter = LoadMeter(concurrency=1)
    assert meter.service_ms == 0.0
    for service_s in (0.001, 0.002, 0.9):
        meter.start_slot(0.0)
        meter.end_slot(0.0, service_s)
    assert meter.service_ms == pytest.approx(2.0)
