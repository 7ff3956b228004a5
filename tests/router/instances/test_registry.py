"""Instances over the internal door and in Redis: joining, leases, draining, changing models; what
several routers know of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import redis.asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.build import REGISTRY
from penstock.router.instances.cold_start_queue import HEARD_S
from penstock.router.instances.registry import Registry
from penstock.router.routing.instance_choice import closed_because
from penstock.router.settings import RouterSettings
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.rpc.registration import Registrar
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN, peer_over, serving

SETTINGS = RouterSettings(lease_ms=60_000)
LOAD = common_pb2.LoadReport(in_flight=3, concurrency=4)


def model(
    name: str, state: inference_pb2.ModelState = inference_pb2.MODEL_STATE_READY
) -> inference_pb2.Model:
    return inference_pb2.Model(name=name, state=state)


def instance(name: str = "a", **changes: object) -> pb.Instance:
    given: dict[str, object] = {
        "address": "127.0.0.1:1",
        "models": [model("m")],
        "concurrency": 2,
        **changes,
    }
    return pb.Instance(id=name, **given)  # type: ignore[arg-type]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[redis.asyncio.Redis]:
    async with embedded_store(tmp_path / "redis") as url, open_store(url) as client:
        yield client


@dataclass
class Rig:
    """A router's internal door without Redis."""

    peer: Peer
    registry: Registry
    clock: FakeClock

    async def beat(self, *models: inference_pb2.Model, name: str = "a") -> pb.HeartbeatResponse:
        request = pb.HeartbeatRequest(instance_id=name, load=LOAD, models=models)
        answer: pb.HeartbeatResponse = await self.peer.call("Heartbeat", request, Call())
        return answer

    def why_closed(self, name: str = "a") -> str:
        return closed_because(
            self.registry.members[name], self.registry.fleets["m"], self.clock.monotonic()
        )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    clock = FakeClock()
    registry = Registry(SETTINGS, None, clock)
    async with peer_over(
        "unix-unary",
        Endpoint(REGISTRY, RegistryServicer(SETTINGS, registry, clock), internal(TOKEN)),
    ) as peer:
        yield Rig(peer, registry, clock)


async def test_a_lease_runs_out_and_a_heartbeat_brings_back(rig: Rig) -> None:
    answer = await rig.peer.call("Register", pb.RegisterRequest(instance=instance()), Call())
    assert (answer.lease_ms, answer.heartbeat_interval_ms) == (60_000, 500)
    await rig.clock.advance(59)
    assert not (await rig.beat()).register_again
    await rig.clock.advance(59)
    assert rig.registry.sweep() == []
    assert not rig.registry.members["a"].lost
    await rig.clock.advance(2)
    assert rig.registry.sweep() == []
    assert rig.why_closed() == "lease has run out"
    assert (await rig.beat()).state == pb.INSTANCE_STATE_JOINING
    assert rig.why_closed() == ""
    await rig.clock.advance(12 * 60)
    assert rig.registry.sweep() == ["a"]
    assert rig.registry.fleets == {}
    assert (await rig.beat()).register_again


async def test_a_draining_instance_gets_nothing_until_it_registers_again(rig: Rig) -> None:
    await rig.peer.call("Register", pb.RegisterRequest(instance=instance()), Call())
    rig.registry.members["a"].own = 2
    answer = await rig.peer.call("Drain", pb.DrainRequest(instance_id="a"), Call())
    assert (answer.in_flight, answer.state) == (2, pb.INSTANCE_STATE_DRAINING)
    await rig.beat(model("m"), model("other"))
    assert rig.why_closed() == "draining", "neither a heartbeat nor another model ends that"
    await rig.peer.call("Register", pb.RegisterRequest(instance=instance()), Call())
    assert (rig.why_closed(), rig.registry.members["a"].own) == (
        "joining: one request at a time",
        2,
    )


async def test_who_deregisters_is_swept_once_and_who_comes_back_is_not(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.peer.call("Register", pb.RegisterRequest(instance=instance(name)), Call())
        await rig.peer.call("Drain", pb.DrainRequest(instance_id=name, deregister=True), Call())
    await rig.peer.call("Register", pb.RegisterRequest(instance=instance("b")), Call())
    assert rig.registry.sweep() == ["a"]
    assert rig.registry.sweep() == []


async def test_models_come_and_go_with_heartbeats(rig: Rig) -> None:
    await rig.peer.call("Register", pb.RegisterRequest(instance=instance()), Call())
    await rig.beat(model("m"), model("n"), model("later", inference_pb2.MODEL_STATE_LOADING))
    assert sorted(rig.registry.fleets) == ["m", "n"]
    await rig.beat()
    assert sorted(rig.registry.fleets) == ["m", "n"], "none said: none changed"
    await rig.beat(model("later"))
    assert sorted(rig.registry.fleets) == ["later"]
    assert rig.registry.fleets["later"].members == [rig.registry.members["a"]]


@pytest.mark.parametrize(
    ("wrong", "field_name"),
    [
        (instance(""), "instance.id"),
        (instance("x" * 129), "instance.id"),
        (instance(address=""), "instance.address"),
        (instance(address="127.0.0.1"), "instance.address"),
        (instance(address="127.0.0.1:70000"), "instance.address"),
        (instance(batcher_address="unix:"), "instance.batcher_address"),
        (instance(concurrency=1 << 20), "instance.concurrency"),
        (instance(microusd_per_hour=-1), "instance.microusd_per_hour"),
        (instance(models=[model("m"), model("")]), "instance.models[1].name"),
        (instance(models=[model("m"), model("m")]), "instance.models[1].name"),
    ],
)
async def test_a_registration_that_cannot_be_names_its_field(
    rig: Rig, wrong: pb.Instance, field_name: str
) -> None:
    with pytest.raises(Fault) as caught:
        await rig.peer.call("Register", pb.RegisterRequest(instance=wrong), Call())
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field_name)
    assert rig.registry.members == {}


async def test_what_is_not_known_is_said(rig: Rig) -> None:
    with pytest.raises(Fault) as caught:
        await rig.peer.call("Drain", pb.DrainRequest(instance_id="nobody"), Call())
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.NOT_FOUND, "instance_id")
    with pytest.raises(Fault) as caught:
        await rig.beat(model(""))
    assert (caught.value.code, caught.value.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "models[0].name",
    )


async def test_routers_agree_on_joining_models_draining_and_leaving(
    store: redis.asyncio.Redis,
) -> None:
    clock = FakeClock()
    first, second = (Registry(SETTINGS, store, clock) for _ in range(2))
    await first.register(instance("a"))
    await first.register(instance("b"))
    await second.read_shared()
    assert second.registered == first.registered
    await first.heartbeat("a", LOAD, [model("m"), model("n")])
    await second.read_shared()
    assert [member.id for member in second.fleets["n"].members] == ["a"]
    await first.drain("a", deregister=False)
    await second.read_shared()
    assert (second.members["a"].leaving, second.members["b"].leaving) == (True, False)
    await second.register(instance("a"))
    await first.read_shared()
    assert not second.members["a"].leaving
    await first.drain("b", deregister=True)
    await clock.advance(61)
    await second.read_shared()
    assert second.members["b"].leaving
    third = Registry(SETTINGS, store, clock)
    await third.read_shared()
    assert sorted(third.registered) == ["a"]
    await first.read_shared()
    assert [registry.fleets["m"].routers for registry in (first, third)] == [3, 3]


async def test_a_room_that_one_router_opens_is_open_at_all_and_their_calls_count_together(
    store: redis.asyncio.Redis,
) -> None:
    clock = FakeClock()
    first, second = (Registry(SETTINGS, store, clock) for _ in range(2))
    first.waiting.scaled(["cold"])
    assert not second.waiting.opens("cold")
    await first.read_shared()
    await second.read_shared()
    assert second.waiting.opens("cold") and not second.waiting.opens("other")
    call = asyncio.create_task(second.waiting.wait("cold"))
    await clock.advance(0.0)
    await second.read_shared()
    await first.read_shared()
    assert (first.waiting.count("cold"), second.waiting.count("cold")) == (1, 1)
    await first.register(instance("a", models=[model("cold")]))
    await second.read_shared()
    assert await call and second.fleets["cold"].members
    await second.read_shared()
    await first.read_shared()
    assert first.waiting.count("cold") == 0


async def test_a_room_opened_elsewhere_closes_when_its_scaler_falls_silent(
    store: redis.asyncio.Redis,
) -> None:
    clock = FakeClock()
    first, second = (Registry(SETTINGS, store, clock) for _ in range(2))
    first.waiting.scaled(["cold"])
    await first.read_shared()
    await second.read_shared()
    await second.read_shared()  # what was heard from another is not passed on as one's own
    assert second.waiting.heard() == {} and second.waiting.opens("cold")
    await clock.advance(HEARD_S + 1.0)
    assert not second.waiting.opens("cold") and not first.waiting.opens("cold")
    assert first.waiting.heard() == {}


async def test_what_cannot_be_read_is_left_out(
    store: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(SETTINGS, store, FakeClock())
    await registry.register(instance("a"))
    await store.sadd("penstock:router:instances", "odd")
    await store.set("penstock:router:instance:odd", b"\xff\xff\xff")
    other = Registry(SETTINGS, store, FakeClock())
    await other.read_shared()
    assert sorted(other.members) == ["a"]
    assert "odd cannot be read" in caplog.text


@dataclass
class Told:
    """A registry that notes what an instance says."""

    registered: asyncio.Event = field(default_factory=asyncio.Event)
    beats: asyncio.Queue[list[str]] = field(default_factory=asyncio.Queue)
    again: bool = False
    registrations: list[list[str]] = field(default_factory=list)

    async def Register(self, request: pb.RegisterRequest, call: Call) -> pb.RegisterResponse:
        self.registrations.append([item.name for item in request.instance.models])
        self.registered.set()
        return pb.RegisterResponse(heartbeat_interval_ms=1, lease_ms=1000)

    async def Heartbeat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        self.beats.put_nowait([item.name for item in request.models])
        again, self.again = self.again, False
        return pb.HeartbeatResponse(register_again=again)

    async def Drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        return pb.DrainResponse()

    async def ListFleets(self, request: pb.ListFleetsRequest, call: Call) -> pb.ListFleetsResponse:
        return pb.ListFleetsResponse()


async def test_an_instance_says_its_models_once_when_they_change_and_again_when_it_registers() -> (
    None
):
    told, models = Told(), [model("m")]
    now: Callable[[], Sequence[inference_pb2.Model]] = lambda: models  # noqa: E731
    async with serving([Endpoint(REGISTRY, told, internal(TOKEN))]) as server, asyncio.timeout(20):
        registrar = Registrar(server.address, instance(), TOKEN, models=now)
        registrar.start()
        assert await told.beats.get() == []
        models = [model("m"), model("n")]
        said = [await told.beats.get() for _ in range(4)]
        assert [beat for beat in said if beat] == [["m", "n"]]
        told.registered.clear()
        told.again = True
        await told.registered.wait()
        assert told.registrations == [["m"], ["m", "n"]]
        await registrar.leave()
