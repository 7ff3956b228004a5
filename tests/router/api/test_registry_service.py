"""The internal service for instances: what registrations, heartbeats and drains are refused for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.registry_service import RegistryServicer
from penstock.router.build import REGISTRY
from penstock.router.instances.registry import Registry
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.testkit.clock import FakeClock
from penstock.testkit.server import TOKEN, peer_over

from ..instances.instances import LOAD, LOADING, SETTINGS, instance, model


@dataclass
class Rig:
    """A router's internal service without a store."""

    peer: Peer
    registry: Registry
    clock: FakeClock

    async def register(self, registered: pb.Instance) -> pb.RegisterResponse:
        """An instance registers."""
        answer: pb.RegisterResponse = await self.peer.call(
            "Register", pb.RegisterRequest(instance=registered), Call()
        )
        return answer

    async def heartbeat(self, name: str, *models: str) -> pb.HeartbeatResponse:
        """An instance says that it lives, and which models it has."""
        request = pb.HeartbeatRequest(
            instance_id=name, load=LOAD, models=[model(one) for one in models]
        )
        answer: pb.HeartbeatResponse = await self.peer.call("Heartbeat", request, Call())
        return answer

    async def drain(self, name: str, *, deregister: bool = False) -> pb.DrainResponse:
        """An instance is to get nothing more."""
        request = pb.DrainRequest(instance_id=name, deregister=deregister)
        answer: pb.DrainResponse = await self.peer.call("Drain", request, Call())
        return answer


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    clock = FakeClock()
    registry = Registry(SETTINGS, None, clock)
    servicer = RegistryServicer(SETTINGS, registry, clock)
    endpoint = Endpoint(REGISTRY, servicer, internal(TOKEN))
    async with peer_over("unix-unary", endpoint) as peer:
        yield Rig(peer, registry, clock)


async def test_an_instance_is_told_its_lease_and_how_often_to_say_that_it_lives(rig: Rig) -> None:
    answer = await rig.register(instance())
    assert (answer.lease_ms, answer.heartbeat_interval_ms) == (60_000, 1_000)
    heartbeat = await rig.heartbeat("a")
    assert (heartbeat.register_again, heartbeat.state) == (False, pb.INSTANCE_STATE_JOINING)
    rig.registry.members["a"].successes = 3
    assert (await rig.heartbeat("a")).state == pb.INSTANCE_STATE_READY
    rig.registry.members["a"].ejected_until = 5.0
    assert (await rig.heartbeat("a")).state == pb.INSTANCE_STATE_EJECTED


async def test_an_instance_that_is_not_known_is_told_to_register_again(rig: Rig) -> None:
    answer = await rig.heartbeat("nobody")
    assert (answer.register_again, answer.state) == (True, pb.INSTANCE_STATE_LOST)


async def test_a_drained_instance_hears_what_is_in_flight_there(rig: Rig) -> None:
    await rig.register(instance())
    rig.registry.members["a"].own = 2
    answer = await rig.drain("a")
    assert (answer.in_flight, answer.state) == (2, pb.INSTANCE_STATE_DRAINING)
    assert (await rig.heartbeat("a")).state == pb.INSTANCE_STATE_DRAINING


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (instance(""), "instance.id"),
        (instance("x" * 129), "instance.id"),
        (instance(address=""), "instance.address"),
        (instance(address="127.0.0.1"), "instance.address"),
        (instance(address=":80"), "instance.address"),
        (instance(address="127.0.0.1:0"), "instance.address"),
        (instance(address="127.0.0.1:70000"), "instance.address"),
        (instance(address="127.0.0.1:\u0665"), "instance.address"),
        (instance(batcher_address="unix:"), "instance.batcher_address"),
        (instance(concurrency=65_537), "instance.concurrency"),
        (instance(microusd_per_hour=-1), "instance.microusd_per_hour"),
        (instance(models=[model("m"), model("")]), "instance.models[1].name"),
        (instance(models=[model("m"), model("m")]), "instance.models[1].name"),
    ],
)
async def test_a_registration_that_cannot_be_names_its_field(
    rig: Rig, wrong: pb.Instance, field: str
) -> None:
    with pytest.raises(Fault) as refused:
        await rig.register(wrong)
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, field)
    assert rig.registry.members == {}


@pytest.mark.parametrize(
    "right",
    [
        instance("x" * 128),
        instance(address="unix:/tmp/s", batcher_address="[::1]:65535"),
        instance(concurrency=65_536, models=[model("m"), model("n", LOADING)]),
    ],
)
async def test_a_registration_at_its_bounds_passes(rig: Rig, right: pb.Instance) -> None:
    await rig.register(right)
    assert rig.registry.registered == {right.id: right}


async def test_an_instance_that_is_not_known_cannot_be_drained(rig: Rig) -> None:
    with pytest.raises(Fault) as refused:
        await rig.drain("nobody")
    assert (refused.value.reason, refused.value.field) == (Reason.NOT_FOUND, "instance_id")


async def test_a_heartbeat_with_models_that_cannot_be_names_its_field(rig: Rig) -> None:
    await rig.register(instance())
    with pytest.raises(Fault) as refused:
        await rig.heartbeat("a", "m", "")
    assert (refused.value.reason, refused.value.field) == (
        Reason.INVALID_ARGUMENT,
        "models[1].name",
    )
