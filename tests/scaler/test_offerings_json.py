"""What was learnt of spot zones outlives a restart, on a real Redis; what cannot be read changes
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.pools.store import ScalerStore
from penstock.scaler.spot.fleet import Machine, SpotFleet
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.offerings_json import dump, load
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock

NAMES = ("a1", "a2", "b1")
NOW = 1_800_000_000.0


def zones(*names: str) -> Offerings:
    return Offerings([Offering(name, name[0]) for name in names or NAMES])


def taught() -> Offerings:
    known = zones()
    for life in (300.0, 9_000.0):
        known.launched("a1", NOW)
        known.lost("a1", NOW + life)
    known.refused("a2", NOW)
    known.launched("b1", NOW + 50)
    for step in range(300):
        known.priced("b1", 0.5 + 0.001 * (step % 10), NOW + 300.0 * step)
        known.note()
    return known


def test_everything_comes_back() -> None:
    before, after = taught(), zones()
    later = NOW + 300.0 * 299
    load(dump(before), after, later)
    for name in NAMES:
        old, new = before.by_name[name], after.by_name[name]
        assert (new.hazard, new.up_since_s, new.retry_at_s, new.failures) == (
            old.hazard,
            old.up_since_s,
            old.retry_at_s,
            old.failures,
        )
        assert new.price == pytest.approx(old.price) and new.price_high == pytest.approx(
            old.price_high
        )
    assert after.pooled == before.pooled and list(after.history) == list(before.history)
    assert dump(after) == dump(before)


def test_zones_that_are_configured_no_more_are_left_out_and_new_ones_begin() -> None:
    after = zones("b1", "c1")
    load(dump(taught()), after, NOW)
    assert set(after.by_name) == {"b1", "c1"} and after.by_name["b1"].up_since_s == NOW + 50
    assert after.by_name["c1"].retry_at_s == -math.inf and not after.history


def broken(change: Callable[[dict[str, Any]], object]) -> str:
    kept = json.loads(dump(taught()))
    change(kept)
    return json.dumps(kept)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        broken(lambda kept: kept["pooled"].update(deaths=[1.0])),
        broken(lambda kept: kept["zones"]["a1"]["hazard"].update(lived_s=[-1.0] * 8)),
        broken(lambda kept: kept["zones"]["a1"].pop("failures")),
        broken(lambda kept: kept["zones"]["a1"].update(retry_at_s="soon")),
        broken(lambda kept: kept["zones"]["b1"]["prices"].update(level=None)),
        broken(lambda kept: kept["zones"]["b1"]["prices"].update(level=float("nan"))),
        broken(lambda kept: kept.update(history=[1])),
    ],
)
def test_what_cannot_be_read_changes_nothing(text: str) -> None:
    known = taught()
    before = dump(known)
    with pytest.raises(ValueError, match="cannot be read"):
        load(text, known, NOW)
    assert dump(known) == before


class Cloud:
    """Room in no zone but those named; machines serve at once."""

    def __init__(self, *room: str) -> None:
        self.room = set(room)
        self.there: list[Machine] = []
        self.asked: list[str] = []

    async def machines(self) -> list[Machine]:
        return list(self.there)

    async def prices(self) -> Mapping[str, float]:
        return dict.fromkeys(NAMES, 0.3)

    async def launch(self, zone: str) -> bool:
        self.asked.append(zone)
        if zone and zone not in self.room:
            return False
        self.there.append(Machine(f"vm-{len(self.asked)}", zone, True))
        return True

    async def end(self, machine: str) -> None:
        self.there = [one for one in self.there if one.id != machine]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ScalerStore]:
    async with embedded_store(tmp_path / "redis") as url, open_store(url) as client:
        yield ScalerStore(client, "a")


async def test_a_restarted_scaler_leaves_alone_what_had_no_room(store: ScalerStore) -> None:
    cloud, clock = Cloud("b1"), FakeClock(NOW)

    def make() -> SpotFleet:
        places = [Offering(name, name[0]) for name in NAMES]
        return SpotFleet(cloud, places, clock, SpotPolicy(extra=0), memory=store.zones("m"))

    first = make()
    await first.scale(3)
    await first.fleet()
    assert {"a1", "a2"} <= set(cloud.asked)
    since = first.zones.by_name["b1"].up_since_s
    await first.close()
    cloud.asked.clear()
    await clock.advance(30.0)
    second = make()
    await second.scale(4)
    assert "b1" in cloud.asked and not {"a1", "a2"} & set(cloud.asked)
    assert second.zones.by_name["b1"].up_since_s == since
    await second.close()


async def test_what_went_while_nobody_looked_is_no_life_that_goes_on(store: ScalerStore) -> None:
    cloud, clock = Cloud(*NAMES), FakeClock(NOW)
    places = [Offering(name, name[0]) for name in NAMES]
    first = SpotFleet(cloud, places, clock, memory=store.zones("m"))
    await first.scale(2)
    await first.fleet()
    await first.close()
    cloud.there, cloud.room = [], set()
    await clock.advance(600.0)
    second = SpotFleet(
        cloud, [Offering(name, name[0]) for name in NAMES], clock, memory=store.zones("m")
    )
    await second.fleet()
    assert all(zone.up_since_s is None for zone in second.zones.by_name.values())
    assert sum(second.zones.pooled.deaths) == 0
    await second.close()


async def test_a_new_leader_begins_from_what_runs_and_an_old_one_that_comes_back_too(
    store: ScalerStore,
) -> None:
    cloud, clock = Cloud(*NAMES), FakeClock(NOW)

    def make() -> SpotFleet:
        return SpotFleet(
            cloud,
            [Offering(n, n[0]) for n in NAMES],
            clock,
            SpotPolicy(extra=1),
            memory=store.zones("m"),
        )

    old, new = make(), make()
    await old.scale(6)
    assert await old.fleet() == FleetStatus(6, 6)
    await clock.advance(61.0)
    assert await new.fleet() == FleetStatus(6, 6), "nothing was asked of it yet"
    before = list(cloud.there)
    assert await new.fleet() == FleetStatus(6, 6) and cloud.there == before, (
        "and only looking starts and ends nothing"
    )
    await new.scale(8)
    await new.fleet()
    await clock.advance(61.0)
    assert (await old.fleet()).wanted == 8, "it does not undo what the other was told"
    for fleet in (old, new):
        await fleet.close()


async def test_one_that_looks_seldom_still_sees_what_it_lost(store: ScalerStore) -> None:
    cloud, clock = Cloud(*NAMES), FakeClock(NOW)
    fleet = SpotFleet(cloud, [Offering(n, n[0]) for n in NAMES], clock, memory=store.zones("m"))
    await fleet.scale(2)
    await fleet.fleet()
    gone = cloud.there[0].zone
    await clock.advance(300.0)
    cloud.there = [one for one in cloud.there if one.zone != gone]
    assert (await fleet.fleet()).wanted == 2
    assert (
        sum(fleet.zones.pooled.deaths) == 1 and fleet.zones.by_name[gone].retry_at_s > clock.time()
    )
    await fleet.close()


async def test_without_redis_it_begins_with_nothing() -> None:
    memory = ScalerStore(None, "a").zones("m")
    await memory.keep("x")
    assert await memory.recall() is None
