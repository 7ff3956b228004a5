"""How an instance keeps itself registered at a router."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.build import REGISTRY
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.registration import Registrar
from penstock.testkit.server import TOKEN, serving

from .instances import instance, model


class ObservedRegistry:
    """A registry that records what an instance says."""

    def __init__(self) -> None:
        self.registered = asyncio.Event()
        self.registrations: list[list[str]] = []
        """Models of each registration."""
        self.heartbeats = asyncio.Queue[list[str]]()
        """Models of each heartbeat, empty where it named none."""
        self.has_forgotten = False
        """The next heartbeat is told to register again."""

    async def Register(self, request: pb.RegisterRequest, call: Call) -> pb.RegisterResponse:
        self.registrations.append([one.name for one in request.instance.models])
        self.registered.set()
        return pb.RegisterResponse(heartbeat_interval_ms=1, lease_ms=1000)

    async def Heartbeat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        self.heartbeats.put_nowait([one.name for one in request.models])
        again, self.has_forgotten = self.has_forgotten, False
        return pb.HeartbeatResponse(register_again=again)

    async def Drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        return pb.DrainResponse()

    async def ListFleets(self, request: pb.ListFleetsRequest, call: Call) -> pb.ListFleetsResponse:
        return pb.ListFleetsResponse()


async def test_an_instance_says_its_models_once_when_they_change_and_again_when_it_registers() -> (
    None
):
    registry, models = ObservedRegistry(), [model("m")]

    def current() -> Sequence[inference_pb2.Model]:
        return models

    endpoint = Endpoint(REGISTRY, registry, internal(TOKEN))
    async with serving([endpoint]) as server, asyncio.timeout(20):
        registrar = Registrar(server.address, instance(), TOKEN, models=current)
        registrar.start()
        assert await registry.heartbeats.get() == []

        models = [model("m"), model("n")]
        heartbeats = [await registry.heartbeats.get() for _ in range(4)]
        assert [names for names in heartbeats if names] == [["m", "n"]]

        registry.registered.clear()
        registry.has_forgotten = True
        await registry.registered.wait()
        assert registry.registrations == [["m"], ["m", "n"]]
        await registrar.leave()
