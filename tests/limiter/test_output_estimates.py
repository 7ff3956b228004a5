"""Estimates of what outputs cost: by route once a route has enough samples, in bounded memory."""

from __future__ import annotations

import pytest
from penstock.limiter import output_estimates
from penstock.limiter.output_estimates import (
    MAX_ROUTES_PER_MODEL,
    MIN_SAMPLES,
    SAMPLES_PER_GROUP,
    CallGroup,
    OutputEstimates,
)

MAX_COST, MIN_COST = [1, 9_000, 9_000], [1, 10, 10]


def record(
    estimates: OutputEstimates, group: CallGroup, tokens: int, times: int = MIN_SAMPLES
) -> None:
    """Record calls whose output costs `tokens`, and twice as many micro-dollars."""
    for _ in range(times):
        estimates.record(group, [0, tokens, 2 * tokens])


def expected(estimates: OutputEstimates, group: CallGroup) -> list[int]:
    return estimates.expected_cost(group, MAX_COST, MIN_COST)


def test_routes_of_other_models_and_tenants_do_not_count() -> None:
    estimates = OutputEstimates(0.9)
    record(estimates, CallGroup("acme", "big", "generate/auto"), 100)
    assert expected(estimates, CallGroup("acme", "big", "generate/auto")) == [1, 110, 210]
    assert expected(estimates, CallGroup("acme", "small", "generate/auto")) == MAX_COST
    assert expected(estimates, CallGroup("evil", "big", "generate/auto")) == MAX_COST


def test_only_the_latest_calls_count() -> None:
    estimates, group = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    record(estimates, group, 5_000, SAMPLES_PER_GROUP)
    record(estimates, group, 100, SAMPLES_PER_GROUP)
    assert expected(estimates, group) == [1, 110, 210]


def test_a_tenant_who_makes_up_routes_displaces_only_its_own() -> None:
    estimates, other = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    record(estimates, other, 100)
    for number in range(10 * MAX_ROUTES_PER_MODEL):
        record(estimates, CallGroup("evil", "big", f"generate/{number}"), 7, 1)
    assert len(estimates) == 2 + MAX_ROUTES_PER_MODEL + 1
    assert expected(estimates, other) == [1, 110, 210]
    assert expected(estimates, CallGroup("evil", "big", "generate/new")) == [1, 17, 24]


def test_the_group_that_was_used_longest_ago_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_estimates, "MAX_GROUPS", 20)
    estimates, used = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    for number in range(200):
        record(estimates, CallGroup(f"tenant-{number}", "big", "generate/big"), 100)
        record(estimates, used, 50, 1)
        assert len(estimates) <= 20
    assert expected(estimates, used) == [1, 60, 110]
    assert expected(estimates, CallGroup("tenant-0", "big", "generate/big")) == MAX_COST
    assert estimates.models_with_routes <= 20
