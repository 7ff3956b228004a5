"""What a limiter remembers of its callers is bounded in number: see docs/bounds.md."""

from __future__ import annotations

from penstock.limiter.counters import MAX_PATHS, PathCounters, SpendPath
from penstock.limiter.holds import MAX_OPEN_HOLDS, OpenHold, OpenHolds
from penstock.limiter.rules import LimitsSection
from penstock.limiter.script import ScriptCall
from penstock.limiter.store.owed_settlements import MAX_OWED, OwedSettlements
from penstock.testkit.clock import FakeClock

BEYOND = 10


async def test_of_owed_settlements_the_oldest_are_dropped() -> None:
    async def nothing(*_: object) -> None:
        return None

    owed = OwedSettlements(nothing, nothing)
    settlement = ScriptCall("settle", "acme", "[]")
    for number in range(MAX_OWED + BEYOND):
        owed.add("acme", f"hold-{number}", settlement, settlement)
    assert len(owed.pending) == MAX_OWED
    assert next(iter(owed.pending)) == ("acme", f"hold-{BEYOND}")


def test_of_open_holds_the_oldest_are_forgotten() -> None:
    holds = OpenHolds(FakeClock())
    for number in range(MAX_OPEN_HOLDS + BEYOND):
        holds.add(f"hold-{number}", OpenHold((1, 0, 0), (1, 0, 0), (1, 0, 0), None, (), ()), 60.0)
    assert len(holds) == MAX_OPEN_HOLDS
    assert holds.get(f"hold-{BEYOND - 1}") is None
    assert holds.get(f"hold-{BEYOND}") is not None


def test_beyond_their_number_all_remembered_paths_are_forgotten() -> None:
    rule = {"name": "r", "kind": "rate", "counts": "requests", "limit": 5}
    counters = PathCounters(LimitsSection.model_validate({"rules": [rule]}), FakeClock())
    first = counters.of(SpendPath("acme", model="0"))
    assert counters.of(SpendPath("acme", model="0")) is first
    for number in range(1, MAX_PATHS + BEYOND):
        counters.of(SpendPath("acme", model=str(number)))
    assert counters.of(SpendPath("acme", model="0")) is not first
