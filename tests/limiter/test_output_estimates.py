"""What outputs are expected to cost: a route's own once it has been seen enough, and memory that
has an end.
"""

from __future__ import annotations

import pytest
from penstock.limiter import output_estimates as outputs
from penstock.limiter.output_estimates import (
    MAX_ROUTES_PER_MODEL,
    MIN_SAMPLES,
    SAMPLES_PER_GROUP,
    CallGroup,
    OutputEstimates,
)

MAX_COST, MIN_COST = [1, 9_000, 9_000], [1, 10, 10]


def learn(seen: OutputEstimates, kind: CallGroup, tokens: int, times: int = MIN_SAMPLES) -> None:
    for _ in range(times):
        seen.learn(kind, [0, tokens, 2 * tokens])


def test_routes_of_other_models_and_tenants_do_not_count() -> None:
    seen = OutputEstimates(0.9)
    learn(seen, CallGroup("acme", "big", "generate/auto"), 100)
    assert seen.usual(CallGroup("acme", "big", "generate/auto"), MAX_COST, MIN_COST) == [
        1,
        110,
        210,
    ]
    for other in (
        CallGroup("acme", "small", "generate/auto"),
        CallGroup("evil", "big", "generate/auto"),
    ):
        assert seen.usual(other, MAX_COST, MIN_COST) == MAX_COST


def test_only_the_latest_calls_count() -> None:
    seen, kind = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    learn(seen, kind, 5_000, SAMPLES_PER_GROUP)
    learn(seen, kind, 100, SAMPLES_PER_GROUP)
    assert seen.usual(kind, MAX_COST, MIN_COST) == [1, 110, 210]


def test_who_makes_up_routes_forgets_its_own_alone() -> None:
    seen, kept = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    learn(seen, kept, 100)
    for number in range(10 * MAX_ROUTES_PER_MODEL):
        learn(seen, CallGroup("evil", "big", f"generate/{number}"), 7, 1)
    assert len(seen) == 2 + MAX_ROUTES_PER_MODEL + 1
    assert seen.usual(kept, MAX_COST, MIN_COST) == [1, 110, 210]
    assert seen.usual(CallGroup("evil", "big", "generate/new"), MAX_COST, MIN_COST) == [1, 17, 24]


def test_the_kind_that_was_used_longest_ago_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outputs, "MAX_GROUPS", 20)
    seen, kept = OutputEstimates(0.9), CallGroup("acme", "big", "generate/big")
    for number in range(200):
        learn(seen, CallGroup(f"tenant-{number}", "big", "generate/big"), 100)
        learn(seen, kept, 50, 1)
        assert len(seen) <= 20
    assert seen.usual(kept, MAX_COST, MIN_COST) == [1, 60, 110]
    assert seen.usual(CallGroup("tenant-0", "big", "generate/big"), MAX_COST, MIN_COST) == MAX_COST
    assert len(seen._routes) <= 20
