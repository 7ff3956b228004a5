"""What a spot fleet learned of its offerings outlives a restart, on a real Redis; a stored text
that cannot be read changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.pools.store import ScalerStore
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.offerings_json import dump_offerings, load_offerings
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock

from .spot_fakes import FakeProvider

NAMES = ("a1", "a2", "b1")
NOW = 1_800_000_000.0


def offerings_of(*names: str) -> Offerings:
    return Offerings([Offering(name, name[0]) for name in names])


def learned() -> Offerings:
    """Three offerings with losses, a refusal, a machine, prices and availability."""
    offerings = offerings_of(*NAMES)
    for life_s in (300.0, 9_000.0):
        offerings.record_launch("a1", NOW)
        offerings.record_loss("a1", NOW + life_s)
    offerings.record_refusal("a2", NOW)
    offerings.record_launch("b1", NOW + 50)
    for step in range(300):
        offerings.record_price("b1", 0.5 + 0.001 * (step % 10), NOW + 300.0 * step)
        offerings.record_availability()
    return offerings


def test_everything_comes_back() -> None:
    before, after = learned(), offerings_of(*NAMES)
    load_offerings(dump_offerings(before), after, NOW + 300.0 * 299)
    for name in NAMES:
        old, new = before.by_name[name], after.by_name[name]
        assert new.hazard == old.hazard
        assert new.up_since_s == old.up_since_s
        assert new.retry_at_s == old.retry_at_s
        assert new.failures == old.failures
        assert new.price == pytest.approx(old.price)
        assert new.high_price == pytest.approx(old.high_price)
    assert after.pooled_hazard == before.pooled_hazard
    assert list(after.availability) == list(before.availability)
    assert dump_offerings(after) == dump_offerings(before)


def test_offerings_no_longer_configured_are_left_out_and_new_ones_begin() -> None:
    after = offerings_of("b1", "c1")
    load_offerings(dump_offerings(learned()), after, NOW)
    assert set(after.by_name) == {"b1", "c1"}
    assert after.by_name["b1"].up_since_s == NOW + 50
    assert after.by_name["c1"].retry_at_s == -math.inf
    assert not after.availability


def changed_dump(change: Callable[[dict[str, Any]], object]) -> str:
    dumped = json.loads(dump_offerings(learned()))
    change(dumped)
    return json.dumps(dumped)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        changed_dump(lambda dumped: dumped["pooled"].update(deaths=[1.0])),
        changed_dump(lambda dumped: dumped["zones"]["a1"]["hazard"].update(lived_s=[-1.0] * 8)),
        changed_dump(lambda dumped: dumped["zones"]["a1"].pop("failures")),
        changed_dump(lambda dumped: dumped["zones"]["a1"].update(retry_at_s="soon")),
        changed_dump(lambda dumped: dumped["zones"]["b1"]["prices"].update(level=None)),
        changed_dump(lambda dumped: dumped["zones"]["b1"]["prices"].update(level=float("nan"))),
        changed_dump(lambda dumped: dumped.update(history=[1])),
    ],
)
def test_a_text_that_cannot_be_read_changes_nothing(text: str) -> None:
    offerings = learned()
    before = dump_offerings(offerings)
    with pytest.raises(ValueError, match="cannot be read"):
        load_offerings(text, offerings, NOW)
    assert dump_offerings(offerings) == before


class World:
    """A provider, and fleets that keep what they learn in one store."""

    def __init__(self, store: ScalerStore) -> None:
        self.clock = FakeClock(NOW)
        self.provider = FakeProvider(dict.fromkeys(NAMES, 0.3))
        self._store = store

    def make_fleet(self, overprovision: int = 1) -> SpotFleet:
        return SpotFleet(
            self.provider,
            [Offering(name, name[0]) for name in NAMES],
            self.clock,
            SpotPolicy(overprovision=overprovision),
            store=self._store.offerings_state("m"),
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with embedded_store(tmp_path / "redis") as url, open_store(url) as client:
        yield World(ScalerStore(client, "a"))


async def test_after_a_restart_offerings_without_capacity_are_still_backed_off(
    world: World,
) -> None:
    world.provider.capacity = {"a1": 0, "a2": 0}
    first = world.make_fleet(overprovision=0)
    await first.scale(3)
    await first.status()
    assert {"a1", "a2"} <= set(world.provider.requested)
    up_since_s = first.offerings.by_name["b1"].up_since_s
    await first.close()
    world.provider.requested.clear()
    await world.clock.advance(30.0)
    second = world.make_fleet(overprovision=0)
    await second.scale(4)
    assert "b1" in world.provider.requested
    assert not {"a1", "a2"} & set(world.provider.requested)
    assert second.offerings.by_name["b1"].up_since_s == up_since_s
    await second.close()


async def test_machines_that_went_while_no_scaler_ran_are_neither_alive_nor_lost(
    world: World,
) -> None:
    first = world.make_fleet()
    await first.scale(2)
    await first.status()
    await first.close()
    world.provider.running = []
    world.provider.capacity = dict.fromkeys(NAMES, 0)
    await world.clock.advance(600.0)
    second = world.make_fleet()
    await second.status()
    assert all(one.up_since_s is None for one in second.offerings.by_name.values())
    assert sum(second.offerings.pooled_hazard.deaths) == 0
    await second.close()


async def test_a_new_leader_begins_from_what_runs(world: World) -> None:
    old, new = world.make_fleet(), world.make_fleet()
    await old.scale(6)
    assert await old.status() == FleetStatus(6, 6)
    await world.clock.advance(61.0)
    assert await new.status() == FleetStatus(6, 6)
    before = list(world.provider.running)
    assert await new.status() == FleetStatus(6, 6)
    assert world.provider.running == before, "observing alone starts and stops nothing"
    for fleet in (old, new):
        await fleet.close()


async def test_a_leader_that_returns_keeps_what_the_other_was_asked_for(world: World) -> None:
    old, new = world.make_fleet(), world.make_fleet()
    await old.scale(6)
    await old.status()
    await world.clock.advance(61.0)
    await new.status()
    await new.scale(8)
    await new.status()
    await world.clock.advance(61.0)
    assert (await old.status()).wanted == 8
    for fleet in (old, new):
        await fleet.close()


async def test_a_fleet_that_is_seldom_observed_still_learns_of_losses(world: World) -> None:
    fleet = world.make_fleet()
    await fleet.scale(2)
    await fleet.status()
    lost = world.provider.running[0].offering
    await world.clock.advance(300.0)
    world.provider.running = [one for one in world.provider.running if one.offering != lost]
    assert (await fleet.status()).wanted == 2
    assert sum(fleet.offerings.pooled_hazard.deaths) == 1
    assert fleet.offerings.by_name[lost].retry_at_s > world.clock.time()
    await fleet.close()


async def test_without_redis_nothing_is_kept() -> None:
    store = ScalerStore(None, "a").offerings_state("m")
    await store.save("x")
    assert await store.load() is None
