"""What outputs are expected to cost: a route's own once it has been seen enough, and memory that
has an end.
"""

from __future__ import annotations

import pytest
from penstock.limiter import output_estimates as outputs
from penstock.limiter.output_estimates import FEWEST, KEPT, ROUTES, Kind, Outputs

MOST, LEAST = [1, 9_000, 9_000], [1, 10, 10]


def learn(seen: Outputs, kind: Kind, tokens: int, times: int = FEWEST) -> None:
    for _ in range(times):
        seen.learn(kind, [0, tokens, 2 * tokens])


def test_routes_of_other_models_and_tenants_do_not_count() -> None:
    seen = Outputs(0.9)
    learn(seen, Kind("acme", "big", "generate/auto"), 100)
    assert seen.usual(Kind("acme", "big", "generate/auto"), MOST, LEAST) == [1, 110, 210]
    for other in (Kind("acme", "small", "generate/auto"), Kind("evil", "big", "generate/auto")):
        assert seen.usual(other, MOST, LEAST) == MOST


def test_only_the_latest_calls_count() -> None:
    seen, kind = Outputs(0.9), Kind("acme", "big", "generate/big")
    learn(seen, kind, 5_000, KEPT)
    learn(seen, kind, 100, KEPT)
    assert seen.usual(kind, MOST, LEAST) == [1, 110, 210]


def test_who_makes_up_routes_forgets_its_own_alone() -> None:
    seen, kept = Outputs(0.9), Kind("acme", "big", "generate/big")
    learn(seen, kept, 100)
    for number in range(10 * ROUTES):
        learn(seen, Kind("evil", "big", f"generate/{number}"), 7, 1)
    assert len(seen) == 2 + ROUTES + 1
    assert seen.usual(kept, MOST, LEAST) == [1, 110, 210]
    assert seen.usual(Kind("evil", "big", "generate/new"), MOST, LEAST) == [1, 17, 24]


def test_the_kind_that_was_used_longest_ago_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outputs, "KINDS", 20)
    seen, kept = Outputs(0.9), Kind("acme", "big", "generate/big")
    for number in range(200):
        learn(seen, Kind(f"tenant-{number}", "big", "generate/big"), 100)
        learn(seen, kept, 50, 1)
        assert len(seen) <= 20
    assert seen.usual(kept, MOST, LEAST) == [1, 60, 110]
    assert seen.usual(Kind("tenant-0", "big", "generate/big"), MOST, LEAST) == MOST
    assert len(seen._routes) <= 20
