"""Two processes of one service have one identity; an instance's id is still one process's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.build import REGISTRY
from penstock.router.instances.registry import Registry
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.rpc.registration import Registrar
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN, serving

from .instances import LOAD, SETTINGS, instance

OWN, OTHER = b"own" * 10, b"other" * 6
CALLER = Call(caller="inference-upstream")
LEASE_S = SETTINGS.lease_ms / 1e3


class Router:
    """The registry of one router, as processes of one service call it."""

    def __init__(
        self, store: redis.asyncio.Redis | None, lease_ms: int = SETTINGS.lease_ms
    ) -> None:
        self.clock = FakeClock()
        settings = SETTINGS.model_copy(update={"lease_ms": lease_ms})
        self.registry = Registry(settings, store, self.clock)
        self.servicer = RegistryServicer(settings, self.registry, self.clock, store)

    async def register(self, secret: bytes, address: str = "127.0.0.1:1") -> None:
        request = pb.RegisterRequest(instance=instance(address=address), registration_secret=secret)
        await self.servicer.Register(request, CALLER)

    async def heartbeat(self, secret: bytes) -> bool:
        """Whether the instance is to register again."""
        request = pb.HeartbeatRequest(instance_id="a", load=LOAD, registration_secret=secret)
        return (await self.servicer.Heartbeat(request, CALLER)).register_again

    async def drain(self, secret: bytes, caller: Call = CALLER) -> None:
        request = pb.DrainRequest(instance_id="a", deregister=True, registration_secret=secret)
        await self.servicer.Drain(request, caller)

    @property
    def address(self) -> str:
        return self.registry.registered["a"].address


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "store") as url, open_store(url) as client:
        yield client


@pytest.fixture(params=["with a store", "without a store"])
def router(request: pytest.FixtureRequest) -> Router:
    shared = request.param == "with a store"
    return Router(request.getfixturevalue("store") if shared else None)


@pytest.mark.threat("stolen registration: another process of the same service takes an id")
@pytest.mark.parametrize("secret", [OTHER, b""])
async def test_an_id_is_registered_by_one_process(router: Router, secret: bytes) -> None:
    await router.register(OWN)
    with pytest.raises(Fault, match="held by another process") as refused:
        await router.register(secret, "10.6.6.6:666")
    assert refused.value.reason is Reason.PERMISSION_DENIED
    assert refused.value.retry_after_s == pytest.approx(LEASE_S, abs=5)
    await router.register(OWN, "127.0.0.1:2")
    assert router.address == "127.0.0.1:2"


@pytest.mark.threat("stolen registration: another process of the same service renews or drains it")
async def test_only_the_process_that_registered_speaks_for_an_id(router: Router) -> None:
    await router.register(OWN)
    for secret in (OTHER, b""):
        with pytest.raises(Fault, match="held by another process"):
            await router.heartbeat(secret)
        with pytest.raises(Fault, match="held by another process"):
            await router.drain(secret)
    assert await router.heartbeat(OWN) is False
    await router.drain(OWN)


@pytest.mark.threat("stolen registration: at another router")
async def test_an_id_is_held_at_every_router_of_a_store(store: redis.asyncio.Redis) -> None:
    first, second = Router(store), Router(store)
    await first.register(OWN)
    with pytest.raises(Fault, match="held by another process"):
        await second.register(OTHER)
    with pytest.raises(Fault, match="held by another process"):
        await second.drain(OTHER)
    assert await second.heartbeat(OWN) is True, "it is told to register again"
    await second.register(OWN)
    assert await second.heartbeat(OWN) is False


async def test_an_id_is_free_once_its_process_has_left(router: Router) -> None:
    await router.register(OWN)
    router.registry.members["a"].own = 1
    await router.drain(OWN)
    await router.register(OTHER)
    assert await router.heartbeat(OTHER) is False


async def test_a_scaler_drains_what_it_has_not_registered(router: Router) -> None:
    await router.register(OWN)
    await router.drain(b"", Call(caller="scaler"))
    await router.register(OTHER)


async def test_a_process_that_crashed_gets_its_id_back_after_the_lease() -> None:
    router = Router(None)
    await router.register(OWN)
    await router.clock.advance(LEASE_S + 1)
    await router.register(OTHER)
    with pytest.raises(Fault):
        await router.heartbeat(OWN)


async def test_at_another_router_too(store: redis.asyncio.Redis) -> None:
    first, second = Router(store, lease_ms=200), Router(store, lease_ms=200)
    await first.register(OWN)

    async def registered() -> bool:
        await second.register(OTHER, "127.0.0.1:2")
        return True

    await eventually(registered, not_yet=(Fault,))
    await first.registry.read_shared()
    with pytest.raises(Fault):
        await first.heartbeat(OWN)


async def test_processes_without_a_secret_are_told_apart_by_their_service_alone(
    router: Router,
) -> None:
    await router.register(b"")
    await router.register(b"", "127.0.0.1:2")
    assert await router.heartbeat(b"") is False


@pytest.mark.parametrize("secret", [b"short", b"x" * 65])
async def test_a_secret_that_could_be_guessed_is_refused(router: Router, secret: bytes) -> None:
    with pytest.raises(Fault) as refused:
        await router.register(secret)
    assert refused.value.field == "registration_secret"


@pytest.mark.threat("secret of a registration in the store")
async def test_the_store_keeps_no_secret(store: redis.asyncio.Redis) -> None:
    await Router(store).register(OWN)
    names = await store.keys("*")
    kept = [
        await store.get(name) for name in names if await store.type(name) in ("string", b"string")
    ]
    assert kept
    assert not any(OWN in (each if isinstance(each, bytes) else each.encode()) for each in kept)


async def test_of_two_running_processes_the_later_waits_until_the_first_has_left() -> None:
    router = Router(None)
    endpoint = Endpoint(REGISTRY, router.servicer, internal(TOKEN))
    async with serving([endpoint]) as server:
        first = Registrar(server.address, instance(address="127.0.0.1:1"), TOKEN)
        first.start()
        await eventually(lambda: router.registry.owns("a"))
        later = Registrar(server.address, instance(address="127.0.0.1:2"), TOKEN)
        later.start()
        await first.leave()
        await eventually(lambda: router.registry.owns("a") and router.address == "127.0.0.1:2")
        await later.leave()
    assert not router.registry.owns("a")
