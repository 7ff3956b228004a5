"""What several routers know of the same instances, through a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis.asyncio
from penstock.router.instances.cold_start_queue import SCALER_MEMORY_S
from penstock.router.instances.registry import Registry
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.cuttable_store import NOWHERE

from .instances import LOAD, SETTINGS, instance, model

COLD = "cold"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "store") as url, open_store(url) as client:
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


MakeRegistry = Callable[[], Registry]


@pytest.fixture
def make_registry(store: redis.asyncio.Redis, clock: FakeClock) -> MakeRegistry:
    """Makes the registry of one router more."""
    return lambda: Registry(SETTINGS, store, clock)


async def test_a_registration_is_known_to_every_router_and_outlives_its_own(
    make_registry: MakeRegistry,
) -> None:
    first = make_registry()
    await first.register(instance("a"))
    await first.register(instance("b"))
    for other in (make_registry(), make_registry()):
        await other.read_shared()
        assert other.registered == first.registered
        assert other.serving("m") == 2
        assert other.notes() == ()


async def test_what_the_store_had_lost_gets_work_from_every_router_again(
    make_registry: MakeRegistry, store: redis.asyncio.Redis
) -> None:
    # given an instance of one router that another knows by the store
    owner, other = make_registry(), make_registry()
    await owner.register(instance("a"))
    await other.read_shared()
    # when the store loses its registration, because it was renewed too late
    await store.delete("penstock:{router}:instance:a")
    await other.read_shared()
    assert (owner.serving("m"), other.serving("m")) == (1, 0)
    # then the owner's next heartbeats bring it back, and the other router sends there again
    for _ in range(2):
        await owner.heartbeat("a", LOAD)
        await owner.read_shared()
    await other.read_shared()
    assert (owner.serving("m"), other.serving("m")) == (1, 1)
    # but not while it is drained
    await owner.drain("a", deregister=False)
    await other.read_shared()
    assert other.serving("m") == 0


async def test_a_new_router_says_that_nobody_serves_a_model_only_when_it_can_know(
    make_registry: MakeRegistry, clock: FakeClock
) -> None:
    without_store = Registry(SETTINGS, open_store(NOWHERE, retries=0), clock)
    await without_store.read_shared()
    assert not without_store.is_complete
    await clock.advance(SETTINGS.lease_ms / 1e3)
    assert without_store.is_complete

    with_store = make_registry()
    assert not with_store.is_complete
    await with_store.read_shared()
    assert with_store.is_complete


async def test_models_that_change_change_at_every_router(make_registry: MakeRegistry) -> None:
    first, second = make_registry(), make_registry()
    await first.register(instance("a"))
    await second.read_shared()
    await first.heartbeat("a", LOAD, [model("m"), model("n")])
    await second.read_shared()
    assert [member.id for member in second.fleets["n"].members] == ["a"]


async def test_a_drain_holds_at_every_router_until_the_instance_registers_again(
    make_registry: MakeRegistry,
) -> None:
    first, second = make_registry(), make_registry()
    await first.register(instance("a"))
    await first.register(instance("b"))
    await second.read_shared()
    await first.drain("a", deregister=False)
    await second.read_shared()
    assert (second.members["a"].leaving, second.members["b"].leaving) == (True, False)
    await second.register(instance("a"))
    await first.read_shared()
    assert first.members["a"].leaving is not True or not second.members["a"].leaving
    assert not second.members["a"].leaving


async def test_an_instance_whose_lease_the_store_lost_for_a_time_gets_work_again(
    make_registry: MakeRegistry, clock: FakeClock, store: redis.asyncio.Redis
) -> None:
    # given two instances of another router, one of them drained
    first, second = make_registry(), make_registry()
    for name in ("a", "b"):
        await first.register(instance(name))
    await second.read_shared()
    await first.drain("b", deregister=False)
    # when both leases end while the store is too slow to renew them
    await store.delete("penstock:{router}:instance:a", "penstock:{router}:instance:b")
    await clock.advance(61)
    await second.read_shared()
    assert second.members["a"].leaving
    # then their heartbeats bring them back, but no work to the one that is drained
    for _ in range(2):
        for name in ("a", "b"):
            await first.heartbeat(name, LOAD)
        await first.read_shared()
    await second.read_shared()
    assert (second.members["a"].leaving, second.members["b"].leaving) == (False, True)


async def test_an_instance_that_deregistered_elsewhere_gets_nothing_once_it_is_silent_here(
    make_registry: MakeRegistry, clock: FakeClock
) -> None:
    first, second = make_registry(), make_registry()
    await first.register(instance("a"))
    await second.register(instance("b"))
    for registry in (first, second):
        await registry.read_shared()
    await first.drain("b", deregister=True)
    await second.read_shared()
    assert not second.members["b"].leaving, "it has just been heard here"
    await clock.advance(61)
    await second.read_shared()
    assert second.members["b"].leaving
    third = make_registry()
    await third.read_shared()
    assert sorted(third.registered) == ["a"]


async def test_routers_count_each_other(make_registry: MakeRegistry) -> None:
    first, second = make_registry(), make_registry()
    await first.register(instance("a"))
    for registry in (first, second, first):
        await registry.read_shared()
    assert [registry.fleets["m"].routers for registry in (first, second)] == [2, 2]
    await second.register(instance("b", models=[model("new")]))
    assert second.fleets["new"].routers == 2


async def test_a_queue_that_one_router_opens_is_open_at_all_and_their_calls_count_together(
    make_registry: MakeRegistry, clock: FakeClock
) -> None:
    first, second = make_registry(), make_registry()
    first.cold_starts.set_scaled([COLD])
    assert not second.cold_starts.is_open(COLD)
    await first.read_shared()
    await second.read_shared()
    assert second.cold_starts.is_open(COLD)
    assert not second.cold_starts.is_open("other")

    call = asyncio.create_task(second.cold_starts.wait(COLD))
    await clock.advance(0.0)
    await second.read_shared()
    await first.read_shared()
    assert (first.cold_starts.count(COLD), second.cold_starts.count(COLD)) == (1, 1)

    await first.register(instance("a", models=[model(COLD)]))
    await second.read_shared()
    assert await call
    assert second.fleets[COLD].members
    await second.read_shared()
    await first.read_shared()
    assert first.cold_starts.count(COLD) == 0


async def test_a_queue_opened_elsewhere_closes_when_its_scaler_falls_silent(
    make_registry: MakeRegistry, clock: FakeClock
) -> None:
    first, second = make_registry(), make_registry()
    first.cold_starts.set_scaled([COLD])
    await first.read_shared()
    await second.read_shared()
    await second.read_shared()  # what was heard from another is not passed on as its own
    assert second.cold_starts.scaled_for_s() == {}
    assert second.cold_starts.is_open(COLD)
    await clock.advance(SCALER_MEMORY_S + 1.0)
    assert not second.cold_starts.is_open(COLD)
    assert not first.cold_starts.is_open(COLD)
    assert first.cold_starts.scaled_for_s() == {}


async def test_a_registration_that_cannot_be_read_is_left_out(
    make_registry: MakeRegistry, store: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await make_registry().register(instance("a"))
    await store.sadd("penstock:{router}:instances", "odd")
    await store.set("penstock:{router}:instance:odd", b"\xff\xff\xff")
    other = make_registry()
    await other.read_shared()
    assert sorted(other.members) == ["a"]
    assert "odd cannot be read" in caplog.text


async def test_without_the_store_memory_goes_on_and_says_so_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store("unix:///nowhere.sock", retries=0) as lost:
        registry = Registry(SETTINGS, lost, clock)
        await registry.register(instance("a"))
        for _ in range(3):
            await registry.read_shared()
        assert await registry.heartbeat("a", LOAD)
        assert await registry.drain("a", deregister=False) == 0
    assert sorted(registry.members) == ["a"]
    assert registry.notes() == ("registry not shared: the store is unavailable",)
    assert caplog.text.count("the store is unavailable") == 1


async def test_heartbeats_keep_a_registration_and_bring_back_what_the_store_has_lost(
    make_registry: MakeRegistry, store: redis.asyncio.Redis
) -> None:
    registry = make_registry()
    await registry.register(instance("a"))
    await store.pexpire("penstock:{router}:instance:a", 1_000)
    await registry.heartbeat("a", LOAD)
    await registry.read_shared()
    assert await store.pttl("penstock:{router}:instance:a") > 1_000
    await store.flushall()
    await registry.heartbeat("a", LOAD)
    await registry.read_shared()
    assert await store.get("penstock:{router}:instance:a") is None, "it may have deregistered"
    await registry.heartbeat("a", LOAD)
    await registry.read_shared()
    other = make_registry()
    await other.read_shared()
    assert sorted(other.registered) == ["a"]
