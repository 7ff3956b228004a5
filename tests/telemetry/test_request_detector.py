"""The detector of requests: usual scatter says nothing, a slow or failing instance is named with
its features and its critical section.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from penstock.otel import attributes as names
from penstock.service.clock import SystemClock
from penstock.telemetry.detection.baseline import fit_baseline
from penstock.telemetry.detection.findings import Contribution, Finding
from penstock.telemetry.detection.group_state import SAMPLE_SIZE
from penstock.telemetry.detection.incidents import MAX_CONTRIBUTIONS, IncidentTracker
from penstock.telemetry.detection.quality import QualityMonitor
from penstock.telemetry.detection.refitting import refit_baselines
from penstock.telemetry.detection.request_detector import MAX_GROUPS, RequestDetector
from penstock.telemetry.detection.request_features import FEATURES, feature_vectors
from penstock.telemetry.spans.spans import Source, SpanTree, Value
from penstock.telemetry.window.settled import SettledRequest
from penstock.telemetry.window.traces import TraceSummary

from .conftest import span

ROUTER, MODEL = Source("router", "router"), Source("inference", "inference-1")


def seen(
    at_s: float, compute_ms: float, error: str = "", instance: Source = MODEL, **said: Value
) -> SettledRequest:
    start = int((1e9 + at_s) * 1e9)
    end = start + int((compute_ms + 2.0) * 1e6)
    told = {names.TIER.replace(".", "__"): "short", **said}
    root = span(
        "RouterService/Embed", start, end, kind="server", source=ROUTER, error=error, **told
    )
    model = span(
        "InferenceService/Compute",
        start + 1_000_000,
        end - 1_000_000,
        "RouterService/Embed",
        source=instance,
        kind="server",
        error=error,
    )
    tree = SpanTree([root, model])
    summary = TraceSummary(
        int(at_s * 1e6).to_bytes(16, "big"),
        root.name,
        "router",
        start,
        end - start,
        2,
        (),
        error,
        model="m",
    )
    return SettledRequest(summary, tree)


def feed(detector: RequestDetector, requests: Sequence[SettledRequest]) -> list[Finding]:
    found: list[Finding] = []
    for request in requests:
        found += detector.observe_request(request)
        while (asked := detector.due()) is not None:
            detector.set_baseline(asked[0], fit_baseline(asked[1]))
    return found


def usual(
    rng: random.Random, count: int, from_s: float = 0.0, **said: Value
) -> list[SettledRequest]:
    return [
        seen(from_s + 0.3 * n, 10.0 * rng.lognormvariate(0.0, 0.2), **said) for n in range(count)
    ]


def test_a_request_gives_a_vector_for_each_service_with_the_time_spent_in_itself() -> None:
    request = seen(0.0, 8.0, penstock__batch__queued_ms=4.0)
    own = {vector.group.service: vector for vector in feature_vectors(request)}
    assert np.exp(own["inference"].values[0]) == pytest.approx(8.0)
    assert np.exp(own["router"].values[0]) == pytest.approx(2.0)
    assert (
        np.expm1(own["router"].values[1]) == pytest.approx(4.0)
        and own["inference"].values[1] == 0.0
    )
    assert own["inference"].section == "inference InferenceService/Compute"


def test_what_is_usual_says_nothing() -> None:
    assert feed(RequestDetector(), usual(random.Random(1), 3000)) == []


def test_a_slow_instance_is_found_named_and_explained() -> None:
    rng, detector = random.Random(2), RequestDetector()
    feed(detector, usual(rng, 800))
    slow = [seen(240.0 + 0.3 * n, 40.0 * rng.lognormvariate(0.0, 0.2)) for n in range(60)]
    found = feed(detector, slow)
    assert {finding.service for finding in found} == {"inference"}
    first = found[0]
    assert first.at_unix_s - 1e9 - 240.0 < 15.0
    assert first.contributions[0].feature == "latency_ms" and first.contributions[0].share > 0.9
    assert first.contributions[0].value == pytest.approx(40.0, rel=0.3)
    assert first.contributions[0].expected == pytest.approx(10.0, rel=0.3)
    assert first.critical_section == "inference InferenceService/Compute"
    assert first.trace_ids


def test_faster_is_no_incident() -> None:
    rng, detector = random.Random(3), RequestDetector()
    feed(detector, usual(rng, 800))
    assert feed(detector, [seen(240.0 + 0.3 * n, 2.0) for n in range(200)]) == []


def test_a_burst_shorter_than_five_seconds_is_no_incident() -> None:
    rng, detector = random.Random(4), RequestDetector()
    feed(detector, usual(rng, 800))
    assert feed(detector, [seen(240.0 + 0.05 * n, 60.0) for n in range(60)]) == []


def test_errors_are_judged_against_the_groups_own_rate() -> None:
    calm, flaky = RequestDetector(), RequestDetector()
    rng = random.Random(5)
    feed(calm, usual(rng, 600))
    feed(
        flaky,
        [seen(0.3 * n, 10.0, "UNAVAILABLE" if rng.random() < 0.2 else "") for n in range(2000)],
    )
    burst = [seen(700.0 + 0.3 * n, 10.0, "UNAVAILABLE" if n % 4 == 0 else "") for n in range(80)]
    found = feed(calm, burst)
    assert (
        found
        and found[0].contributions[0].feature == "error_rate"
        and "inference" in {one.service for one in found}
    )
    assert feed(flaky, burst) == [], "a quarter failing is nothing new where a fifth always did"


def test_what_callers_do_wrong_is_no_error_of_the_service() -> None:
    detector = RequestDetector()
    feed(detector, usual(random.Random(9), 300))
    assert (
        feed(detector, [seen(100.0 + 0.3 * n, 10.0, "RESOURCE_EXHAUSTED") for n in range(100)])
        == []
    )


def test_the_new_usual_is_adopted_in_the_end() -> None:
    rng, detector = random.Random(6), RequestDetector()
    feed(detector, usual(rng, 800))
    moved = [seen(240.0 + n, 40.0 * rng.lognormvariate(0.0, 0.2)) for n in range(2400)]
    found = feed(detector, moved)
    assert found and max(finding.at_unix_s for finding in found) - 1e9 < 240.0 + 1300.0


def test_groups_are_bounded() -> None:
    detector = RequestDetector()
    for number in range(MAX_GROUPS):
        detector.observe_request(
            seen(float(number), 10.0, instance=Source("inference", f"i-{number}"))
        )
    assert detector.state()["groups"] == MAX_GROUPS


async def test_fitting_happens_beside_the_loop_and_reaches_the_detector() -> None:
    detector = RequestDetector()
    for request in usual(random.Random(7), 200):
        detector.observe_request(request)
    task = asyncio.create_task(refit_baselines(detector, SystemClock()))
    async with asyncio.timeout(20):
        while not detector.state()["groups_fitted"]:
            await asyncio.sleep(0.01)
    task.cancel()


def test_distances_are_calibrated_whatever_their_distribution() -> None:
    rng = np.random.default_rng(1)
    rows = [tuple(row) for row in rng.standard_t(2, size=(2 * SAMPLE_SIZE, len(FEATURES)))]
    set_baseline = fit_baseline(rows[:SAMPLE_SIZE])
    surprisals = [
        set_baseline.surprisal(sum(set_baseline.distance_parts(row))) for row in rows[SAMPLE_SIZE:]
    ]
    rare = sum(surprisal > -np.log(0.05) for surprisal in surprisals) / SAMPLE_SIZE
    assert 0.02 < rare < 0.09


def test_a_drift_of_confidence_is_one_finding_and_noise_is_none() -> None:
    rng, quality = random.Random(8), QualityMonitor()

    def told(middle: float, count: int) -> list[Finding]:
        said = [
            {names.CONFIDENCE.replace(".", "__"): rng.gauss(middle, 0.05)} for _ in range(count)
        ]
        return [finding for one in said for finding in quality.take(seen(0.0, 10.0, **one))]

    assert told(0.85, 3000) == []
    (finding,) = told(0.78, 300)
    assert finding.detector == "drift" and finding.contributions[0].feature == "confidence"


def test_an_incident_grows_by_a_subject_and_names_each() -> None:
    book, slow = IncidentTracker(), Contribution("latency_ms", 1.0, 33.0, 24.0)
    first = book.take(Finding("batcher", "batcher a", "requests", 1000.0, 21.0, "slow", (slow,)))
    again = book.take(Finding("batcher", "batcher a", "requests", 1030.0, 21.0, "slow", (slow,)))
    other = book.take(Finding("batcher", "batcher b", "requests", 1060.0, 9.0, "slow too", (slow,)))
    assert [row.grew for row in (first, again, other)] == [False, False, True]
    assert [
        (contribution.subject, contribution.feature) for contribution in other.contributions
    ] == [
        ("batcher a", "latency_ms"),
        ("batcher b", "latency_ms"),
    ]


def test_an_incident_that_blames_too_much_keeps_every_subject() -> None:
    book = IncidentTracker()
    for number in range(3):
        contributions = tuple(Contribution(f"feature {n}", 1.0, 1.0, 1.0) for n in range(6))
        last = book.take(
            Finding(
                "batcher", f"group {number}", "requests", 1000.0, 5.0 - number, "ill", contributions
            )
        )
    assert len(last.contributions) == MAX_CONTRIBUTIONS and {
        contribution.subject for contribution in last.contributions
    } == {
        "group 0",
        "group 1",
        "group 2",
    }


def test_findings_of_a_service_within_five_minutes_are_one_incident() -> None:
    book = IncidentTracker()
    first = book.take(Finding("router", "a", "metric", 1000.0, 5.0, "one"))
    second = book.take(Finding("router", "b", "requests", 1290.0, 7.0, "two", trace_ids=("t",)))
    third = book.take(Finding("router", "c", "metric", 1591.0, 5.0, "three"))
    other = book.take(Finding("cache", "a", "metric", 1000.0, 5.0, "four"))
    assert (
        first.id == second.id
        and second.alerts == 2
        and second.text == "two"
        and second.trace_ids == ("t",)
    )
    assert len({second.id, third.id, other.id}) == 3


def test_audits_that_contradict_the_cache_are_one_finding_and_a_few_are_none() -> None:
    quality = QualityMonitor()
    for _ in range(60):  # each point: five audits, and every tenth time one of them is wrong
        assert quality.observe_audits("cache", "chat", 5, 1.0, 0.0) == []
    for _ in range(20):
        assert quality.observe_audits("cache", "chat", 50, 0.98, 0.0) == []
    found = [
        finding
        for _ in range(20)
        for finding in quality.observe_audits("cache", "chat", 5, 0.6, 100.0)
    ]
    (finding,) = found
    assert (finding.service, finding.detector) == ("cache", "drift") and finding.contributions[
        0
    ].feature == "agreement"
    ((_, _, measure),) = quality.rows()
    assert measure.drifted and measure.observations == 300 + 1000 + 100


def test_how_sure_the_cache_was_of_a_hit_says_nothing_of_the_model() -> None:
    quality = QualityMonitor()
    quality.take(
        seen(0.0, 10.0, penstock__cache__outcome="SEMANTIC_HIT", penstock__cache__confidence=0.97)
    )
    assert [name for _, name, _ in quality.rows()] == ["latency_ms"]
    vector = next(
        feature_vectors(
            seen(
                0.0, 10.0, penstock__cache__outcome="SEMANTIC_HIT", penstock__cache__confidence=0.97
            )
        )
    )
    assert vector.values[FEATURES.index("confidence")] == 0.0


def test_how_usual_embeddings_are_and_how_full_the_window_is_are_measured() -> None:
    quality = QualityMonitor()
    said = {
        "penstock__embedding__typicality": 0.7,
        "penstock__context_window_tokens": 512,
        "gen_ai__usage__input_tokens": 128,
    }
    quality.take(seen(0.0, 10.0, **said))
    rows = {name: row.now for _, name, row in quality.rows()}
    assert rows["embedding"] == 0.7 and rows["context_use"] == 0.25


def test_an_incident_names_what_every_finding_of_it_blames_the_worst_first_and_each_once() -> None:
    book = IncidentTracker()
    slow, failing = (
        Contribution("latency_ms", 1.0, 33.0, 24.0),
        Contribution("error_rate", 1.0, 0.5, 0.01),
    )
    book.take(Finding("batcher", "a", "requests", 1000.0, 21.0, "slow", (slow,)))
    book.take(Finding("batcher", "b", "requests", 1010.0, 7.0, "failing", (failing,)))
    last = book.take(Finding("batcher", "b", "requests", 1020.0, 30.0, "failing more", (failing,)))
    assert [contribution.feature for contribution in last.contributions] == [
        "error_rate",
        "latency_ms",
    ]


def test_right_and_wrong_are_told_apart_after_a_handful() -> None:
    quality = QualityMonitor()
    assert quality.observe_audits("cache", "chat", 50, 1.0, 0.0) == []
    assert quality.observe_audits("cache", "chat", 3, 0.0, 1.0) == [], "three may be chance"
    assert len(quality.observe_audits("cache", "chat", 1, 0.0, 2.0)) == 1
    rng, calm = random.Random(12), QualityMonitor()
    for _ in range(5000):
        assert calm.observe_audits("cache", "chat", 1, float(rng.random() < 0.98), 0.0) == []
