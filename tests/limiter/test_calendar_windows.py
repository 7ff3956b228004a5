"""Windows across a change of the clocks: none overlaps another, none is left out, and no budget is
given twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import Unit, windows
from penstock.rpc.call import Call, Principal

Limiters = Any
ANN = Call(Principal("acme", user="ann"))
MINUTE, HOUR = 60, 3_600


def utc(month: int, day: int, hour: int, minute: int = 0) -> int:
    return int(datetime(2026, month, day, hour, minute, tzinfo=UTC).timestamp())


BERLIN, HOWE, CHATHAM, HAVANA = (
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Havana",
)
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


@pytest.mark.parametrize("unit", ["minute", "hour", "day", "week", "month"])
@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_each_window_begins_where_the_one_before_ends(zone: str, change: int, unit: Unit) -> None:
    seen = []
    for at in range(change - 3 * HOUR, change + 3 * HOUR, 30):
        start, end, following = windows(unit, zone, at)
        assert start <= at * 1000 < end
        assert windows(unit, zone, end / 1000)[:2] == (end, following)
        if not seen or seen[-1] != (start, end):
            seen.append((start, end))
    assert all(before[1] == after[0] for before, after in pairwise(seen))


@pytest.mark.parametrize(
    ("zone", "change", "minutes"),
    [
        (BERLIN, utc(3, 29, 1), [60, 60, 60]),
        (BERLIN, utc(10, 25, 1), [60, 60, 60]),  # the hour that comes twice is two hours
        (HOWE, utc(10, 3, 15, 30), [60, 30, 60]),  # 01:00 to 02:00, 02:30 to 03:00, 03:00 to 04:00
        (HOWE, utc(4, 4, 15), [60, 30, 60]),  # 01:00 to 02:00, again 01:30 to 02:00, 02:00 to 03:00
    ],
)
def test_an_hour_is_as_long_as_the_clock_lets_it_be(
    zone: str, change: int, minutes: list[int]
) -> None:
    before, cut = windows("hour", zone, change - 1), windows("hour", zone, change)
    after = windows("hour", zone, cut[1] / 1000)
    assert [(end - start) // 60_000 for start, end, _ in (before, cut, after)] == minutes
    assert (before[1], cut[0]) == (change * 1000, change * 1000)


def rule(calendar: bool, zone: str = "UTC") -> dict[str, object]:
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


async def spend(limiter: LimiterServicer, name: str, cost: int) -> int:
    """Reserve and commit; returns the verdict."""
    amount = pb.Amount(microusd=cost)
    decision = (await limiter.Reserve(pb.ReserveRequest(hold_id=name, amount=amount), ANN)).decision
    if decision.verdict == pb.VERDICT_ALLOWED:
        await limiter.Commit(pb.CommitRequest(hold_id=name, spent=amount), ANN)
    return int(decision.verdict)


async def at(limiters: Limiters, moment: float) -> None:
    await limiters.clock.advance(moment - limiters.clock.time())


CUT = [
    (HOWE, datetime(2027, 4, 3, 15, tzinfo=UTC)),
    (HOWE, datetime(2027, 10, 2, 15, 30, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "changed"), CUT, ids=["autumn", "spring"])
async def test_a_budget_of_an_hour_that_is_cut_is_given_once(
    limiters: Limiters, zone: str, changed: datetime
) -> None:
    limiter, change = limiters.make([rule(True, zone)]), changed.timestamp()
    await at(limiters, change - 0.5)
    assert await spend(limiter, "before", 900) == pb.VERDICT_ALLOWED
    await at(limiters, change + 0.2)  # by counters that were computed before the change
    assert await spend(limiter, "cut", 900) == pb.VERDICT_ALLOWED
    await at(limiters, change + 10 * MINUTE)  # and by counters computed after it: the same window
    assert await spend(limiter, "again", 900) == pb.VERDICT_BUDGET_EXHAUSTED
    await at(limiters, change + 30 * MINUTE)
    assert await spend(limiter, "after", 900) == pb.VERDICT_ALLOWED
    assert (await limiters.stores[0].verify("acme"))[1] == []


async def test_a_day_with_two_midnights_is_one_day(limiters: Limiters) -> None:
    limiter = limiters.make([{**rule(True, HAVANA), "window": "day"}])
    change = datetime(2027, 11, 7, 5, tzinfo=UTC).timestamp()  # 01:00 becomes 00:00
    for moment, verdict in (
        (change - 30 * MINUTE, pb.VERDICT_ALLOWED),
        (change + 30 * MINUTE, pb.VERDICT_BUDGET_EXHAUSTED),
        (change + 90 * MINUTE, pb.VERDICT_BUDGET_EXHAUSTED),
    ):
        await at(limiters, moment)
        assert await spend(limiter, f"{moment}", 600) == verdict


@pytest.mark.parametrize(("zone", "changed"), CUT, ids=["autumn", "spring"])
async def test_a_rolling_hour_knows_no_change_of_the_clocks(
    limiters: Limiters, zone: str, changed: datetime
) -> None:
    limiter, change = limiters.make([rule(False, zone)]), changed.timestamp()
    await at(limiters, change - 20 * MINUTE)
    assert await spend(limiter, "a", 900) == pb.VERDICT_ALLOWED
    for minutes in (1, 20, 39):
        await at(limiters, change + minutes * MINUTE)
        assert await spend(limiter, f"b{minutes}", 200) == pb.VERDICT_BUDGET_EXHAUSTED
    await at(limiters, change + 42 * MINUTE)  # an hour and the last step
    assert await spend(limiter, "c", 900) == pb.VERDICT_ALLOWED
