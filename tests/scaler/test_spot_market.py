"""The spot fleet on a simulated market: days in virtual time, through the same interface as on a
cloud.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.offerings import Offering
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.simulation.spot_market import TICK_S, Market, bamboo_market, generate_market
from penstock.simulation.spot_provider import MarketProvider
from penstock.testkit.clock import FakeClock

NEED = 4
SPOT_ONLY = SpotPolicy(overprovision=0, on_demand_delay_s=1e12)


def fleet_on(
    market: Market, policy: SpotPolicy | None = None
) -> tuple[SpotFleet, MarketProvider, FakeClock]:
    clock = FakeClock(1_800_000_000.0)
    provider = MarketProvider(market, clock)
    offerings = [Offering(name, region) for name, region in market.zones.items()]
    return SpotFleet(provider, offerings, clock, policy or SpotPolicy()), provider, clock


async def run(market: Market, ticks: int, policy: SpotPolicy | None = None) -> tuple[float, float]:
    """The availability over so many ticks, and the cost as a share of on demand."""
    fleet, provider, clock = fleet_on(market, policy)
    await fleet.scale(NEED)
    missing = 0
    for _ in range(ticks):
        await clock.advance(TICK_S)
        missing += NEED - (await fleet.status()).ready
    await provider.machines()
    await fleet.close()
    return 1.0 - missing / (NEED * ticks), provider.cost / (NEED * ticks * TICK_S)


async def test_with_on_demand_fallback_the_fleet_is_available_and_cheaper_than_on_demand() -> None:
    market = generate_market(6, 4.0)
    availability, cost = await run(market, 1_500)
    availability_of_spot, cost_of_spot = await run(market, 1_500, SPOT_ONLY)
    assert availability > 0.98
    assert availability > availability_of_spot
    assert cost_of_spot < cost < 0.6


async def test_machines_that_the_market_takes_are_replaced_in_another_zone() -> None:
    capacity = np.full((8, 2), NEED + 1)
    capacity[4:, 0] = 0
    market = Market({"a1": "a", "b1": "b"}, capacity, np.full(capacity.shape, 0.3))
    fleet, provider, clock = fleet_on(market)
    await fleet.scale(NEED)
    for _ in range(3):
        await clock.advance(TICK_S)
        await fleet.status()
    assert {one.offering for one in await provider.machines()} == {"a1", "b1"}
    for _ in range(3):
        await clock.advance(TICK_S)
        status = await fleet.status()
    assert {one.offering for one in await provider.machines() if one.offering} == {"b1"}
    assert status.ready == NEED
    assert fleet.offerings.by_name["a1"].failures > 0
    await fleet.close()


async def test_a_launch_without_capacity_is_refused() -> None:
    _, provider, _ = fleet_on(Market({"a1": "a"}, np.array([[1]]), np.array([[0.3]])))
    assert await provider.launch("a1")
    assert not await provider.launch("a1")
    assert await provider.launch("")


async def test_published_preemption_traces_make_a_market(tmp_path: Path) -> None:
    assert bamboo_market(tmp_path, NEED) is None
    for name in ("p3-trace.csv", "g4dn-trace.csv"):
        rows = [
            f"{minute * 60_000},{'remove' if minute % 20 == 19 else 'add'},n{minute}"
            for minute in range(60)
        ]
        (tmp_path / name).write_text("\n".join(rows))
    lines = [f"2020-01-01, 00:{minute:02d}:00, {10 if minute < 30 else 5}" for minute in range(60)]
    (tmp_path / "gcloud-v100x1-east1c.txt").write_text("\n".join(lines))
    market = bamboo_market(tmp_path, NEED)
    assert market is not None and set(market.zones) == {"p3", "g4dn", "gcloud"}
    assert market.capacity[:, 2].max() == NEED and market.capacity[:, 2].min() == NEED / 2
    availability, _ = await run(market, len(market.capacity) - 1)
    assert availability == pytest.approx(1.0, abs=0.1)
