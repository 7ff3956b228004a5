"""Which traces outlive ordinary ones when the window is full."""

from __future__ import annotations

import random

import pytest
from penstock.telemetry.window.retention import TraceFacts, retention_reason


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (TraceFacts("INTERNAL", 1.0, 10.0, 1000, is_anomalous=True), "error"),
        (TraceFacts("", 1.0, 10.0, 1000, is_anomalous=True), "anomalous"),
        (TraceFacts("", 11.0, 10.0, 1000), "slow"),
        (TraceFacts("", 1.0, 10.0, 1000, kept_by_sender="slow"), "slow"),
        (TraceFacts("", 11.0, 10.0, 99), ""),
        (TraceFacts("", 1.0, 10.0, 1000), ""),
    ],
    ids=[
        "failed",
        "anomalous",
        "slower than the 99th percentile",
        "slow by its sender",
        "a route with too few traces",
        "ordinary",
    ],
)
def test_a_trace_is_kept_for_the_strongest_reason(facts: TraceFacts, reason: str) -> None:
    assert retention_reason(facts, reservoir_size=0, rng=random.Random(1)) == reason


def test_the_reservoir_keeps_about_its_size_of_each_route() -> None:
    rng = random.Random(1)
    reasons = [
        retention_reason(TraceFacts("", 1.0, 10.0, number), 50, rng) for number in range(1, 51)
    ]
    assert reasons == ["reservoir"] * 50, "the first fill it"
    later = [retention_reason(TraceFacts("", 1.0, 10.0, 1000), 50, rng) for _ in range(2000)]
    assert 0.035 < later.count("reservoir") / len(later) < 0.065
