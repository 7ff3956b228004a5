"""The scorer of the anomaly benchmark, on detectors whose score is known without it."""

from __future__ import annotations

import random

import pytest
from penstock.bench.telemetry.nab import (
    EDGE,
    LOW_FALSE,
    LOW_MISSED,
    STANDARD,
    Stream,
    benchmark_score,
    generated_streams,
    probation,
    score_file,
)

STREAM = Stream("x", (0.0,) * 2000, ((800, 899), (1500, 1599)))


@pytest.mark.parametrize("profile", [STANDARD, LOW_FALSE, LOW_MISSED])
def test_a_detector_that_never_speaks_scores_nothing_and_a_perfect_one_all(profile: object) -> None:
    streams = [STREAM, *generated_streams(random.Random(1))]
    assert benchmark_score(
        [score_file(stream, [], profile) for stream in streams], profile
    ) == pytest.approx(0.0)  # type: ignore[arg-type]
    first_rows = [[window[0] for window in stream.windows] for stream in streams]
    outcomes = [
        score_file(stream, rows, profile) for stream, rows in zip(streams, first_rows, strict=True)
    ]  # type: ignore[arg-type]
    assert benchmark_score(outcomes, profile) == pytest.approx(100.0)  # type: ignore[arg-type]


def test_only_the_earliest_alert_of_a_window_counts_and_late_ones_are_worth_less() -> None:
    early, late = score_file(STREAM, [810, 820, 890]), score_file(STREAM, [890])
    assert early.raw == score_file(STREAM, [810]).raw > late.raw
    assert early.windows_hit == 1 and early.false_alerts == 0


def test_a_false_alert_costs_its_weight_far_from_windows_and_less_just_after_one() -> None:
    far = score_file(STREAM, [400]).raw - score_file(STREAM, []).raw
    near = score_file(STREAM, [905]).raw - score_file(STREAM, []).raw
    assert far == pytest.approx(-0.11) and -0.11 < near < 0.0
    assert score_file(STREAM, [400], LOW_FALSE).raw - score_file(
        STREAM, [], LOW_FALSE
    ).raw == pytest.approx(-0.22)


def test_alerts_of_the_probation_are_not_scored() -> None:
    assert STREAM.probation == 300 and probation(22_000) == 750
    assert score_file(STREAM, [0, 100, 299]) == score_file(STREAM, [])


def test_the_edge_is_worth_one() -> None:
    assert pytest.approx(0.98661429815) == EDGE
    assert score_file(STREAM, [800, 1500]).raw == pytest.approx(2.0)
