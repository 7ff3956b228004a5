"""The internal service for instances and scalers: register, heartbeat, drain, list fleets."""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.scoreboard import state_of
from penstock.router.instances.holders import Holders
from penstock.router.instances.ownership import Ownership
from penstock.router.instances.registry import Registry
from penstock.router.requests.resolved import MAX_NAME_BYTES
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.rpc.callers import DRAIN_OTHERS
from penstock.rpc.errors import invalid, not_found
from penstock.service.clock import Clock

MAX_CONCURRENCY = 65_536
"""More than that is a mistake in what was registered."""


MAX_SCALED = 1000


class RegistryServicer:
    """penstock.api.router.v1.RegistryService."""

    def __init__(
        self,
        settings: RouterSettings,
        registry: Registry,
        clock: Clock,
        store: redis.asyncio.Redis | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._ownership = Ownership(store, clock)
        self._holders = Holders(store, registry, clock)

    async def Register(self, request: pb.RegisterRequest, call: Call) -> pb.RegisterResponse:
        check_instance(request.instance)
        await self._ownership.claim(request.instance.id, call.caller)
        await self._holders.claim(request.instance.id, request.registration_secret)
        await self._registry.register(request.instance)
        return pb.RegisterResponse(
            heartbeat_interval_ms=self._settings.heartbeat_interval_ms,
            lease_ms=self._settings.lease_ms,
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        check_models(request.models, "models")
        await self._ownership.check(request.instance_id, call.caller)
        await self._holders.check(request.instance_id, request.registration_secret)
        known = await self._registry.heartbeat(request.instance_id, request.load, request.models)
        state = state_of(self._registry.members.get(request.instance_id), self._clock.monotonic())
        return pb.HeartbeatResponse(register_again=not known, state=state)

    async def Drain(self, request: pb.DrainRequest, call: Call) -> pb.DrainResponse:
        await self._ownership.check(request.instance_id, call.caller)
        if call.caller not in DRAIN_OTHERS:
            await self._holders.check(request.instance_id, request.registration_secret)
        in_flight = await self._registry.drain(request.instance_id, request.deregister)
        if request.deregister:
            self._holders.release(request.instance_id)
        if in_flight is None:
            raise not_found("instance_id", f"{request.instance_id!r} is not registered")
        return pb.DrainResponse(in_flight=in_flight, state=pb.INSTANCE_STATE_DRAINING)

    async def ListFleets(self, request: pb.ListFleetsRequest, call: Call) -> pb.ListFleetsResponse:
        if not all(request.scaled):
            raise invalid("scaled", "has an empty name")
        if len(request.scaled) > MAX_SCALED:
            raise invalid("scaled", f"has more than {MAX_SCALED} names")
        cold_starts = self._registry.cold_starts
        cold_starts.set_scaled(request.scaled)
        answer = pb.ListFleetsResponse()
        for model in sorted({*self._registry.fleets, *request.scaled}):
            answer.fleets.add(
                model=model, serving=self._registry.serving(model), waiting=cold_starts.count(model)
            )
        return answer


def check_instance(instance: pb.Instance) -> None:
    """Raise INVALID_ARGUMENT for the first thing in a registration that cannot be."""
    for name in ("id", "address"):
        if not getattr(instance, name):
            raise invalid(f"instance.{name}", "is empty")
    if len(instance.id.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise invalid("instance.id", f"is longer than {MAX_NAME_BYTES} bytes")
    for name in ("address", "batcher_address"):
        address = getattr(instance, name)
        if address and not _is_address(address):
            raise invalid(f"instance.{name}", f"{address!r} is neither host:port nor unix:/path")
    if instance.concurrency > MAX_CONCURRENCY:
        raise invalid("instance.concurrency", f"is more than {MAX_CONCURRENCY}")
    if instance.microusd_per_hour < 0:
        raise invalid("instance.microusd_per_hour", "is negative")
    check_models(instance.models, "instance.models")


def check_models(models: Sequence[inference_pb2.Model], field: str) -> None:
    """Raise INVALID_ARGUMENT for a model without a name, or one that stands twice."""
    names = [model.name for model in models]
    for index, name in enumerate(names):
        if not name:
            raise invalid(f"{field}[{index}].name", "is empty")
        if names.index(name) != index:
            raise invalid(f"{field}[{index}].name", f"{name!r} stands twice")


def _is_address(address: str) -> bool:
    if address.startswith("unix:"):
        return len(address) > len("unix:")
    host, _, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65_536
