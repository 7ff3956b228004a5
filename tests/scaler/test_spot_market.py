"""The fleet that serves on a simulated market: the same actuator and provider interface as on a
cloud, days in virtual time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.offerings import Offering
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.simulation.spot_market import TICK_S, Market, bamboo, generate
from penstock.simulation.spot_provider import MarketProvider
from penstock.testkit.clock import FakeClock

NEED = 4


def fleet_on(
    market: Market, knobs: SpotPolicy | None = None
) -> tuple[SpotFleet, MarketProvider, FakeClock]:
    clock = FakeClock(1_800_000_000.0)
    provider = MarketProvider(market, clock)
    places = [Offering(name, region) for name, region in market.zones.items()]
    return SpotFleet(provider, places, clock, knobs or SpotPolicy()), provider, clock


async def run(market: Market, ticks: int, knobs: SpotPolicy | None = None) -> tuple[float, float]:
    """(availability, cost as a share of on demand) over so many ticks."""
    fleet, provider, clock = fleet_on(market, knobs)
    await fleet.scale(NEED)
    missing = 0
    for _ in range(ticks):
        await clock.advance(TICK_S)
        missing += NEED - (await fleet.fleet()).ready
    await provider.machines()
    await fleet.close()
    return 1.0 - missing / (NEED * ticks), provider.paid / (NEED * ticks * TICK_S)


async def test_the_fleet_is_there_and_cheap_on_a_market_of_days() -> None:
    market = generate(6, 4.0)
    there, cost = await run(market, 1_500)
    alone, cheapest = await run(market, 1_500, SpotPolicy(extra=0, patience_s=1e12))
    assert there > 0.98 and there > alone
    assert cheapest < cost < 0.6


async def test_a_trace_takes_machines_and_the_fleet_makes_them_good() -> None:
    room = np.full((8, 2), NEED + 1)
    room[4:, 0] = 0
    market = Market({"a1": "a", "b1": "b"}, room, np.full(room.shape, 0.3))
    fleet, provider, clock = fleet_on(market)
    await fleet.scale(NEED)
    for _ in range(3):
        await clock.advance(TICK_S)
        await fleet.fleet()
    assert {one.zone for one in await provider.machines()} == {"a1", "b1"}
    for _ in range(3):
        await clock.advance(TICK_S)
        seen = await fleet.fleet()
    assert {one.zone for one in await provider.machines() if one.zone} == {
        "b1"
    } and seen.ready == NEED
    assert fleet.zones.by_name["a1"].failures > 0
    await fleet.close()


async def test_where_there_is_no_room_a_launch_says_so() -> None:
    _, provider, _ = fleet_on(Market({"a1": "a"}, np.array([[1]]), np.array([[0.3]])))
    assert (
        await provider.launch("a1")
        and not await provider.launch("a1")
        and await provider.launch("")
    )


async def test_published_traces_are_a_market_too(tmp_path: Path) -> None:
    assert bamboo(tmp_path, NEED) is None
    for name in ("p3-trace.csv", "g4dn-trace.csv"):
        rows = [
            f"{minute * 60_000},{'remove' if minute % 20 == 19 else 'add'},n{minute}"
            for minute in range(60)
        ]
        (tmp_path / name).write_text("\n".join(rows))
    lines = [f"2020-01-01, 00:{minute:02d}:00, {10 if minute < 30 else 5}" for minute in range(60)]
    (tmp_path / "gcloud-v100x1-east1c.txt").write_text("\n".join(lines))
    market = bamboo(tmp_path, NEED)
    assert market is not None and set(market.zones) == {"p3", "g4dn", "gcloud"}
    assert market.room[:, 2].max() == NEED and market.room[:, 2].min() == NEED / 2
    there, _ = await run(market, len(market.room) - 1)
    assert there == pytest.approx(1.0, abs=0.1)
