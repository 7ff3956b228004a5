"""Quality of answers: a measure that leaves its reference drifts, noise does not."""

from __future__ import annotations

import random

import pytest
from penstock.otel import attributes as semconv
from penstock.telemetry.detection.incidents import Finding
from penstock.telemetry.detection.quality import (
    REFERENCE_SIZE,
    QualityMeasure,
    QualityMonitor,
)

from .requests import named, settled_request


def measures(monitor: QualityMonitor) -> dict[str, QualityMeasure]:
    return {name: measure for _, name, measure in monitor.rows()}


@pytest.mark.parametrize(
    ("deviations", "drifts"), [(0.0, False), (0.2, False), (1.5, True), (-1.5, True)]
)
def test_a_measure_drifts_by_more_than_a_quarter_of_its_deviation(
    deviations: float, drifts: bool
) -> None:
    measure = QualityMeasure()
    for number in range(REFERENCE_SIZE):
        measure.add(10.0 + number % 5)
    for number in range(200):
        measure.add(10.0 + number % 5 + deviations * 1.41)
    assert measure.has_drifted is drifts


def test_a_measure_that_is_back_at_its_reference_has_not_drifted() -> None:
    measure = QualityMeasure()
    for number in range(REFERENCE_SIZE):
        measure.add(10.0 + number % 5)
    for _ in range(200):
        measure.add(20.0)
    assert measure.has_drifted
    for number in range(2000):
        measure.add(10.0 + number % 5)
    assert not measure.has_drifted


def test_a_drift_of_confidence_is_one_finding_and_noise_is_none() -> None:
    rng, monitor = random.Random(8), QualityMonitor()

    def observe(mean: float, count: int) -> list[Finding]:
        findings: list[Finding] = []
        for _ in range(count):
            confidence = {named(semconv.CONFIDENCE): rng.gauss(mean, 0.05)}
            findings += monitor.observe_request(settled_request(0.0, 10.0, **confidence))
        return findings

    assert observe(0.85, 3000) == []
    (finding,) = observe(0.78, 300)
    assert finding.detector == "drift"
    assert finding.contributions[0].feature == "confidence"


def test_audits_that_contradict_the_cache_are_one_finding() -> None:
    monitor = QualityMonitor()
    for _ in range(60):
        assert monitor.observe_audits("cache", "chat", 5, 1.0, 0.0) == []
    for _ in range(20):
        assert monitor.observe_audits("cache", "chat", 50, 0.98, 0.0) == [], "one wrong in 50"
    findings = [
        finding
        for _ in range(20)
        for finding in monitor.observe_audits("cache", "chat", 5, 0.6, 100.0)
    ]
    (finding,) = findings
    assert (finding.service, finding.detector) == ("cache", "drift")
    assert finding.contributions[0].feature == "agreement"
    measure = measures(monitor)["agreement"]
    assert measure.has_drifted
    assert measure.observations == 300 + 1000 + 100


def test_a_handful_of_wrong_answers_is_enough_to_drift() -> None:
    monitor = QualityMonitor()
    assert monitor.observe_audits("cache", "chat", 50, 1.0, 0.0) == []
    assert monitor.observe_audits("cache", "chat", 3, 0.0, 1.0) == [], "three may be chance"
    assert len(monitor.observe_audits("cache", "chat", 1, 0.0, 2.0)) == 1


def test_a_steady_share_of_wrong_answers_does_not_drift() -> None:
    rng, monitor = random.Random(12), QualityMonitor()
    for _ in range(5000):
        is_right = float(rng.random() < 0.98)
        assert monitor.observe_audits("cache", "chat", 1, is_right, 0.0) == []


def test_the_caches_confidence_is_no_measure_of_the_model() -> None:
    monitor = QualityMonitor()
    monitor.observe_request(
        settled_request(
            0.0, 10.0, penstock__cache__outcome="SEMANTIC_HIT", penstock__cache__confidence=0.97
        )
    )
    assert list(measures(monitor)) == ["latency_ms"]


def test_typicality_and_use_of_the_context_window_are_measured() -> None:
    monitor = QualityMonitor()
    monitor.observe_request(
        settled_request(
            0.0,
            10.0,
            penstock__embedding__typicality=0.7,
            penstock__context_window_tokens=512,
            gen_ai__usage__input_tokens=128,
        )
    )
    assert measures(monitor)["embedding"].recent_mean == 0.7
    assert measures(monitor)["context_use"].recent_mean == 0.25
