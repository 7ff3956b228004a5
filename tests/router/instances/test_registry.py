"""Which instances exist, at one router: leases, drains, models that come and go."""

from __future__ import annotations

import asyncio
import math

import pytest
from penstock.router.instances.registry import Registry
from penstock.router.registry_upkeep import keep_registry
from penstock.router.routing.choice import Why, closed_because
from penstock.testkit.clock import FakeClock

from .instances import LOAD, LOADING, SETTINGS, instance, model

LEASE_S = 60.0


class Gone:
    """Notes which instances are to be detached and forgotten."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def forget(self, instance_id: str) -> None:
        self._names.add(f"forgotten {instance_id}")

    async def detach(self, instance_id: str) -> None:
        self._names.add(f"detached {instance_id}")

    @property
    def names(self) -> list[str]:
        return sorted(self._names)


class Rig:
    """A registry without a store, in virtual time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = Registry(SETTINGS, None, self.clock)

    async def heartbeat(self, *models: str) -> bool:
        """Instance `a` says that it lives."""
        return await self.registry.heartbeat("a", LOAD, [model(name) for name in models])

    def closed_because(self) -> Why | None:
        """Why instance `a` may take nothing for the model `m`."""
        member, fleet = self.registry.members["a"], self.registry.fleets["m"]
        return closed_because(member, fleet, self.clock.monotonic())


@pytest.fixture
async def rig() -> Rig:
    """A registry with the instance `a`."""
    made = Rig()
    await made.registry.register(instance())
    return made


async def test_a_heartbeat_renews_the_lease(rig: Rig) -> None:
    for _ in range(3):
        await rig.clock.advance(LEASE_S - 1)
        assert await rig.heartbeat()
        assert rig.registry.sweep() == []
        assert rig.closed_because() is None


async def test_it_is_known_when_the_next_lease_ends(rig: Rig) -> None:
    assert rig.registry.next_loss_s() == LEASE_S
    await rig.clock.advance(LEASE_S / 2)
    await rig.heartbeat()
    assert rig.registry.next_loss_s() == LEASE_S * 1.5
    await rig.clock.advance(LEASE_S + 1)
    rig.registry.sweep()
    assert rig.registry.next_loss_s() == math.inf


async def test_an_instance_is_lost_when_its_lease_ends_and_not_at_the_next_tick(rig: Rig) -> None:
    # given a registry that is read every 40 s, and a lease of 60 s that nothing renews
    gone = Gone()
    keeping = asyncio.create_task(
        keep_registry(rig.registry, gone, gone, rig.clock, interval_s=40.0)
    )
    await rig.clock.advance(LEASE_S - 0.01)
    assert rig.closed_because() is None
    # then it is lost at 60 s and forgotten ten leases later
    await rig.clock.advance(0.02)
    assert rig.closed_because() is Why.LEASE_EXPIRED
    await rig.clock.advance(11 * LEASE_S)
    assert gone.names == ["detached a", "forgotten a"]
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_without_a_heartbeat_the_lease_runs_out_and_the_next_one_brings_back(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.clock.advance(LEASE_S + 1)
    assert rig.registry.sweep() == []
    assert rig.closed_because() is Why.LEASE_EXPIRED
    assert rig.registry.serving("m") == 0
    assert "60000" in caplog.text
    assert await rig.heartbeat()
    assert rig.closed_because() is None
    assert rig.registry.serving("m") == 1


async def test_an_instance_that_stays_away_is_forgotten(rig: Rig) -> None:
    await rig.clock.advance(11 * LEASE_S + 1)
    assert rig.registry.sweep() == ["a"]
    assert (rig.registry.fleets, rig.registry.strategies, rig.registry.members) == ({}, {}, {})
    assert not await rig.heartbeat()


async def test_an_instance_with_requests_in_flight_is_not_forgotten(rig: Rig) -> None:
    rig.registry.members["a"].own = 1
    await rig.clock.advance(11 * LEASE_S + 1)
    assert rig.registry.sweep() == []
    rig.registry.members["a"].own = 0
    assert rig.registry.sweep() == ["a"]


async def test_a_draining_instance_gets_nothing_until_it_registers_again(rig: Rig) -> None:
    rig.registry.members["a"].own = 2
    assert await rig.registry.drain("a", deregister=False) == 2
    await rig.heartbeat("m", "other")
    assert rig.closed_because() is Why.DRAINING, "neither a heartbeat nor another model ends that"
    await rig.registry.register(instance())
    assert rig.closed_because() is Why.JOINING
    assert rig.registry.members["a"].own == 2


async def test_an_instance_that_deregisters_is_swept_once(rig: Rig) -> None:
    await rig.registry.drain("a", deregister=True)
    assert "a" not in rig.registry.members
    assert rig.registry.sweep() == ["a"]
    assert rig.registry.sweep() == []


async def test_an_instance_that_comes_back_before_the_sweep_has_not_gone(rig: Rig) -> None:
    await rig.registry.drain("a", deregister=True)
    await rig.registry.register(instance())
    assert rig.registry.sweep() == []
    assert rig.registry.serving("m") == 1


async def test_an_instance_that_deregisters_with_requests_in_flight_is_kept_for_them(
    rig: Rig,
) -> None:
    rig.registry.members["a"].own = 1
    assert await rig.registry.drain("a", deregister=True) == 1
    assert rig.closed_because() is Why.DRAINING


async def test_models_come_and_go_with_heartbeats(rig: Rig) -> None:
    models = [model("m"), model("n"), model("later", LOADING)]
    await rig.registry.heartbeat("a", LOAD, models)
    assert sorted(rig.registry.fleets) == ["m", "n"]
    await rig.heartbeat()
    assert sorted(rig.registry.fleets) == ["m", "n"], "a heartbeat without models changes none"
    await rig.heartbeat("later")
    assert sorted(rig.registry.fleets) == sorted(rig.registry.strategies) == ["later"]
    assert rig.registry.fleets["later"].members == [rig.registry.members["a"]]


async def test_a_heartbeat_tells_the_load(rig: Rig) -> None:
    await rig.clock.advance(5.0)
    await rig.heartbeat()
    member = rig.registry.members["a"]
    assert (member.reported, member.concurrency, member.load_at) == (3.0, 4, 5.0)


async def test_a_fleet_keeps_its_strategy_while_it_has_members(rig: Rig) -> None:
    strategy = rig.registry.strategies["m"]
    await rig.registry.register(instance("b"))
    await rig.registry.drain("a", deregister=True)
    assert rig.registry.strategies["m"] is strategy
    assert [member.id for member in rig.registry.fleets["m"].members] == ["b"]


def test_a_registry_without_a_store_says_that_it_is_not_shared() -> None:
    assert Rig().registry.notes() == ("registry not shared: the store is unavailable",)
