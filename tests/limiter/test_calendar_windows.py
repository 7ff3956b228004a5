"""Calendar windows, also across changes of the clocks: none overlaps another, none is left out, and
no budget is given twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.calendar_windows import Unit, calendar_window

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
MINUTE, HOUR = 60, 3_600
BERLIN, CHATHAM, HAVANA = "Europe/Berlin", "Pacific/Chatham", "America/Havana"
HOWE = "Australia/Lord_Howe"
"""Its clocks change by half an hour."""


def utc(month: int, day: int, hour: int, minute: int = 0) -> int:
    return int(datetime(2026, month, day, hour, minute, tzinfo=UTC).timestamp())


CHANGES = [
    (BERLIN, utc(3, 29, 1)),  # 02:00 becomes 03:00
    (BERLIN, utc(10, 25, 1)),  # 03:00 becomes 02:00
    (HOWE, utc(10, 3, 15, 30)),  # 02:00 becomes 02:30
    (HOWE, utc(4, 4, 15)),  # 02:00 becomes 01:30
    (CHATHAM, utc(9, 26, 14)),  # 02:45 becomes 03:45
    (CHATHAM, utc(4, 4, 14)),  # 03:45 becomes 02:45
    (HAVANA, utc(3, 8, 5)),  # 00:00 becomes 01:00: a day without midnight
    (HAVANA, utc(11, 1, 5)),  # 01:00 becomes 00:00: a day with two
]


@pytest.mark.parametrize(
    ("unit", "zone", "at", "hours"),
    [
        ("day", BERLIN, utc(3, 29, 1), 23),
        ("day", BERLIN, utc(10, 25, 1), 25),
        ("day", "UTC", utc(3, 29, 1), 24),
        ("week", "UTC", utc(3, 29, 1), 168),
        ("month", "UTC", utc(3, 1, 21), 744),
    ],
)
def test_a_window_is_as_long_as_the_calendar_says(
    unit: Unit, zone: str, at: int, hours: int
) -> None:
    window = calendar_window(unit, zone, at)
    assert window.start_ms <= at * 1000 < window.end_ms < window.next_end_ms
    assert window.end_ms - window.start_ms == hours * HOUR * 1000


@pytest.mark.parametrize("unit", ["minute", "hour", "day", "week", "month"])
@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_each_window_begins_where_the_one_before_ends(zone: str, change: int, unit: Unit) -> None:
    windows: list[tuple[int, int]] = []
    for at in range(change - 3 * HOUR, change + 3 * HOUR, 30):
        start_ms, end_ms, next_end_ms = calendar_window(unit, zone, at)
        assert start_ms <= at * 1000 < end_ms
        assert calendar_window(unit, zone, end_ms / 1000)[:2] == (end_ms, next_end_ms)
        if not windows or windows[-1] != (start_ms, end_ms):
            windows.append((start_ms, end_ms))
    assert all(before[1] == after[0] for before, after in pairwise(windows))


@pytest.mark.parametrize(
    ("zone", "change", "minutes"),
    [
        (BERLIN, utc(3, 29, 1), [60, 60, 60]),
        (BERLIN, utc(10, 25, 1), [60, 60, 60]),  # the hour that comes twice is two hours
        (HOWE, utc(10, 3, 15, 30), [60, 30, 60]),  # 01:00 to 02:00, 02:30 to 03:00, 03:00 to 04:00
        (HOWE, utc(4, 4, 15), [60, 30, 60]),  # 01:00 to 02:00, again 01:30 to 02:00, 02:00 to 03:00
    ],
)
def test_an_hour_is_as_long_as_the_clocks_let_it_be(
    zone: str, change: int, minutes: list[int]
) -> None:
    before = calendar_window("hour", zone, change - 1)
    cut = calendar_window("hour", zone, change)
    after = calendar_window("hour", zone, cut.end_ms / 1000)
    lengths_ms = [window.end_ms - window.start_ms for window in (before, cut, after)]
    assert lengths_ms == [length * 60_000 for length in minutes]
    assert before.end_ms == cut.start_ms == change * 1000


def hour_budget(*, calendar: bool, zone: str = "UTC") -> dict[str, object]:
    """A rule of 1,000 micro-dollars an hour."""
    return {
        "name": "hour",
        "kind": "budget",
        "counts": "microusd",
        "limit": 1_000,
        "window": "hour",
        "calendar": calendar,
        "time_zone": zone,
        "adaptive": False,
    }


async def spend(limiter: Limiter, hold_id: str, cost: int) -> int:
    """Reserve and commit; returns the verdict."""
    decision = await limiter.reserve(hold_id, cost)
    if decision.verdict == pb.VERDICT_ALLOWED:
        await limiter.commit(hold_id, cost)
    return int(decision.verdict)


async def move_to(limiters: Limiters, moment_s: float) -> None:
    await limiters.clock.advance(moment_s - limiters.clock.time())


CUT = [
    (HOWE, datetime(2027, 4, 3, 15, tzinfo=UTC)),
    (HOWE, datetime(2027, 10, 2, 15, 30, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "changed"), CUT, ids=["autumn", "spring"])
async def test_a_budget_of_an_hour_that_is_cut_is_given_once(
    limiters: Limiters, zone: str, changed: datetime
) -> None:
    limiter, change_s = limiters.make(hour_budget(calendar=True, zone=zone)), changed.timestamp()
    await move_to(limiters, change_s - 0.5)
    assert await spend(limiter, "before", 900) == pb.VERDICT_ALLOWED
    # by counters that were made before the change
    await move_to(limiters, change_s + 0.2)
    assert await spend(limiter, "cut", 900) == pb.VERDICT_ALLOWED
    # and by counters that were made after it: the same window
    await move_to(limiters, change_s + 10 * MINUTE)
    assert await spend(limiter, "again", 900) == pb.VERDICT_BUDGET_EXHAUSTED
    await move_to(limiters, change_s + 30 * MINUTE)
    assert await spend(limiter, "after", 900) == pb.VERDICT_ALLOWED
    assert (await limiter.store.verify("acme"))[1] == []


async def test_a_day_with_two_midnights_is_one_day(limiters: Limiters) -> None:
    limiter = limiters.make({**hour_budget(calendar=True, zone=HAVANA), "window": "day"})
    change_s = datetime(2027, 11, 7, 5, tzinfo=UTC).timestamp()  # 01:00 becomes 00:00
    await move_to(limiters, change_s - 30 * MINUTE)
    assert await spend(limiter, "before", 600) == pb.VERDICT_ALLOWED
    for minutes in (30, 90):
        await move_to(limiters, change_s + minutes * MINUTE)
        assert await spend(limiter, f"{minutes} after", 600) == pb.VERDICT_BUDGET_EXHAUSTED


@pytest.mark.parametrize("changed", [moment for _, moment in CUT], ids=["autumn", "spring"])
async def test_a_rolling_hour_is_not_affected_by_a_change_of_the_clocks(
    limiters: Limiters, changed: datetime
) -> None:
    limiter, change_s = limiters.make(hour_budget(calendar=False)), changed.timestamp()
    await move_to(limiters, change_s - 20 * MINUTE)
    assert await spend(limiter, "a", 900) == pb.VERDICT_ALLOWED
    for minutes in (1, 20, 39):
        await move_to(limiters, change_s + minutes * MINUTE)
        assert await spend(limiter, f"b{minutes}", 200) == pb.VERDICT_BUDGET_EXHAUSTED
    await move_to(limiters, change_s + 42 * MINUTE)  # an hour and the last step
    assert await spend(limiter, "c", 900) == pb.VERDICT_ALLOWED
