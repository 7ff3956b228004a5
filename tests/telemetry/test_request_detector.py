"""The request detector: usual scatter gives no finding, a slow or failing instance is named with
its features and its critical section.
"""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from penstock.service.clock import SystemClock
from penstock.telemetry.detection.group_state import SAMPLE_SIZE, fit_baseline
from penstock.telemetry.detection.refitting import refit_baselines
from penstock.telemetry.detection.request_detector import MAX_GROUPS, RequestDetector
from penstock.telemetry.detection.request_features import FEATURES, feature_vectors
from penstock.telemetry.spans.spans import Source
from penstock.telemetry.window.settled_traces import SettledRequest
from penstock.testkit.eventually import eventually

from .requests import START_S, feed, settled_request, slow_requests, usual_requests

LATENCY, QUEUE_WAIT = FEATURES.index("latency_ms"), FEATURES.index("queue_wait_ms")
CONFIDENCE = FEATURES.index("confidence")


def test_each_process_has_a_vector_with_the_time_spent_in_itself() -> None:
    request = settled_request(0.0, 8.0, penstock__batch__queued_ms=4.0)
    vectors = {vector.group.service: vector for vector in feature_vectors(request)}
    inference, router = vectors["inference"], vectors["router"]
    assert np.exp(inference.values[LATENCY]) == pytest.approx(8.0)
    assert np.exp(router.values[LATENCY]) == pytest.approx(2.0)
    assert np.expm1(router.values[QUEUE_WAIT]) == pytest.approx(4.0)
    assert inference.values[QUEUE_WAIT] == 0.0
    assert inference.section == "inference InferenceService/Compute"


def test_the_caches_confidence_is_no_feature_of_the_model() -> None:
    request = settled_request(
        0.0, 10.0, penstock__cache__outcome="SEMANTIC_HIT", penstock__cache__confidence=0.97
    )
    vector = next(feature_vectors(request))
    assert vector.values[CONFIDENCE] == 0.0


def test_usual_requests_give_no_finding() -> None:
    assert feed(RequestDetector(), usual_requests(random.Random(1), 3000)) == []


def test_a_slow_instance_is_found_named_and_explained() -> None:
    rng, detector = random.Random(2), RequestDetector()
    feed(detector, usual_requests(rng, 800))

    findings = feed(detector, slow_requests(rng, 60, 240.0, 40.0))

    assert {finding.service for finding in findings} == {"inference"}
    first = findings[0]
    assert first.at_unix_s - START_S - 240.0 < 15.0
    largest = first.contributions[0]
    assert largest.feature == "latency_ms"
    assert largest.share > 0.9
    assert largest.value == pytest.approx(40.0, rel=0.3)
    assert largest.expected == pytest.approx(10.0, rel=0.3)
    assert first.critical_section == "inference InferenceService/Compute"
    assert first.trace_ids


def test_faster_requests_give_no_finding() -> None:
    rng, detector = random.Random(3), RequestDetector()
    feed(detector, usual_requests(rng, 800))
    assert feed(detector, [settled_request(240.0 + 0.3 * n, 2.0) for n in range(200)]) == []


def test_a_burst_shorter_than_five_seconds_gives_no_finding() -> None:
    rng, detector = random.Random(4), RequestDetector()
    feed(detector, usual_requests(rng, 800))
    assert feed(detector, [settled_request(240.0 + 0.05 * n, 60.0) for n in range(60)]) == []


def test_failures_above_the_groups_own_rate_are_found() -> None:
    detector = RequestDetector()
    feed(detector, usual_requests(random.Random(5), 600))
    quarter_failing = [
        settled_request(700.0 + 0.3 * n, 10.0, "UNAVAILABLE" if n % 4 == 0 else "")
        for n in range(80)
    ]
    findings = feed(detector, quarter_failing)
    assert findings[0].contributions[0].feature == "error_rate"
    assert "inference" in {finding.service for finding in findings}


def test_a_quarter_failing_is_nothing_new_where_a_fifth_always_did() -> None:
    rng, detector = random.Random(5), RequestDetector()

    def request(at_s: float, failed: bool) -> SettledRequest:
        return settled_request(at_s, 10.0, "UNAVAILABLE" if failed else "")

    feed(detector, [request(0.3 * n, rng.random() < 0.2) for n in range(2000)])
    assert feed(detector, [request(700.0 + 0.3 * n, n % 4 == 0) for n in range(80)]) == []


def test_errors_of_callers_are_no_failures_of_the_service() -> None:
    detector = RequestDetector()
    feed(detector, usual_requests(random.Random(9), 300))
    refused = [settled_request(100.0 + 0.3 * n, 10.0, "RESOURCE_EXHAUSTED") for n in range(100)]
    assert feed(detector, refused) == []


def test_what_stays_abnormal_becomes_the_new_baseline() -> None:
    rng, detector = random.Random(6), RequestDetector()
    feed(detector, usual_requests(rng, 800))
    findings = feed(detector, slow_requests(rng, 2400, 240.0, 40.0, every_s=1.0))
    assert findings
    last_s = max(finding.at_unix_s for finding in findings)
    assert last_s - START_S < 240.0 + 1300.0


def test_the_number_of_groups_is_bounded() -> None:
    detector = RequestDetector()
    for number in range(MAX_GROUPS):
        instance = Source("inference", f"i-{number}")
        detector.observe_request(settled_request(float(number), 10.0, instance=instance))
    assert detector.metrics()["groups"] == MAX_GROUPS


async def test_baselines_are_fitted_in_the_background() -> None:
    detector = RequestDetector()
    for request in usual_requests(random.Random(7), 200):
        detector.observe_request(request)
    task = asyncio.create_task(refit_baselines(detector, SystemClock()))
    await eventually(lambda: detector.metrics()["groups_fitted"], timeout_s=20.0)
    task.cancel()


def test_distances_are_calibrated_whatever_their_distribution() -> None:
    rng = np.random.default_rng(1)
    rows = [tuple(row) for row in rng.standard_t(2, size=(2 * SAMPLE_SIZE, len(FEATURES)))]
    baseline = fit_baseline(rows[:SAMPLE_SIZE])
    surprisals = [
        baseline.surprisal(sum(baseline.distance_parts(row))) for row in rows[SAMPLE_SIZE:]
    ]
    rare = sum(surprisal > -np.log(0.05) for surprisal in surprisals) / SAMPLE_SIZE
    assert 0.02 < rare < 0.09
