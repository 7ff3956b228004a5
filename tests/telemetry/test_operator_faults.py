"""What the operator has to mend opens an incident at its first failure."""

from __future__ import annotations

import pytest
from penstock.otel import attributes as semconv
from penstock.telemetry.detection.pipeline import DetectionPipeline
from penstock.telemetry.window.series import Point, Series, SeriesKey

START_S = 1_800_000_000.0


def counter(instance: str, reason: str) -> Series:
    labels = ((semconv.ERROR_TYPE, reason), (semconv.INSTANCE, instance))
    key = SeriesKey("router", semconv.OPERATOR_FAULTS, labels)
    return Series(key, "router-1", "{attempt}", "sum")


def observed(*points: tuple[Series, float, float]) -> DetectionPipeline:
    """A pipeline that was shown totals of counters: series, seconds after the start, total."""
    pipeline = DetectionPipeline()
    for series, after_s, total in points:
        pipeline.observe_point(series, Point(START_S + after_s, total))
    return pipeline


OTHER = counter("z", "UPSTREAM_NO_MODEL")


@pytest.mark.wire_case(18)
def test_the_first_refused_key_opens_an_incident_that_names_the_instance() -> None:
    pipeline = observed((OTHER, 0.0, 3.0), (counter("a", "UPSTREAM_CREDENTIALS"), 300.0, 1.0))
    [incident] = pipeline.incidents.newest_first()
    assert (incident.service, incident.subject, incident.detector) == (
        "router",
        "instance a",
        "operator",
    )
    assert incident.text == (
        "instance a: its upstream refuses the key; renew it (UPSTREAM_CREDENTIALS)"
    )


@pytest.mark.wire_case(18)
def test_an_incident_goes_on_while_the_fault_does() -> None:
    refused = counter("a", "UPSTREAM_BALANCE")
    pipeline = observed((OTHER, 0.0, 0.0), *((refused, 100.0 + n * 60.0, n) for n in (1, 2, 3)))
    [incident] = pipeline.incidents.newest_first()
    assert incident.alerts == 3


def test_what_was_counted_before_and_does_not_grow_is_no_incident() -> None:
    old = counter("a", "UPSTREAM_CREDENTIALS")
    pipeline = observed((old, 0.0, 7.0), (OTHER, 5.0, 1.0), (old, 200.0, 7.0), (old, 400.0, 7.0))
    assert not pipeline.incidents.newest_first()
