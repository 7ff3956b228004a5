"""The internal door for instances: register, heartbeat, drain."""

from __future__ import annotations

from penstock.api.router.v1 import router_pb2 as pb
from penstock.core.call import Call
from penstock.core.clock import Clock
from penstock.core.errors import invalid, not_found
from penstock.router.config import RouterSettings
from penstock.router.registry import Registry
from penstock.router.scoreboard import state_of


class RegistryServicer:
    """penstock.api.router.v1.RegistryService."""

    def __init__(self, settings: RouterSettings, registry: Registry, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock

    async def Register(self, request: pb.RegisterRequest, call: Call) -> pb.RegisterResponse:
        for name in ("id", "address"):
            if not getattr(request.instance, name):
                raise invalid(f"instance.{name}", "is empty")
        await self._registry.register(request.instance)
        return pb.RegisterResponse(
            heartbeat_interval_ms=self._settings.heartbeat_interval_ms, lease_ms=self._settings.lease_ms
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        known = await self._registry.heartbeat(request.instance_id, request.load)
        state = state_of(self._registry.members.get(request.instance_id), self._clock.monotonic())
        return pb.HeartbeatResponse(register_again=not known, state=state)

    async def Drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        in_flight = await self._registry.drain(request.instance_id, request.deregister)
        if in_flight is None:
            raise not_found("instance_id", f"{request.instance_id!r} is not registered")
        return pb.DrainResponse(in_flight=in_flight, state=pb.INSTANCE_STATE_DRAINING)
