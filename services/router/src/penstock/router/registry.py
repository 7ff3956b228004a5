"""Which instances exist: registrations and heartbeats, shared with other routers through Redis, served from memory.

Redis holds each registration under a key that expires with its lease; every router reads them.
Redis gone: memory goes on with what is registered here, and `shared` says so.
"""

from __future__ import annotations

import logging

import redis.asyncio
from google.protobuf.message import DecodeError
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core.clock import Clock
from penstock.router import policy
from penstock.router.config import RouterSettings
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

PREFIX = "penstock:router:instance:"
INDEX = "penstock:router:instances"


class Registry:
    """The fleet with its registrations and leases. Owner of every policy.Instance."""

    def __init__(self, settings: RouterSettings, store: redis.asyncio.Redis | None, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.fleet = policy.Fleet()
        self.registered: dict[str, router_pb2.Instance] = {}
        self._lease_until: dict[str, float] = {}
        self.shared = store is not None

    async def register(self, instance: router_pb2.Instance) -> None:
        """Take an instance in; one that registers again after a restart starts as a newcomer."""
        self._adopt(instance, fresh=True)
        await self._share(instance)

    async def heartbeat(self, instance_id: str, load: common_pb2.LoadReport) -> bool:
        """Renew a lease; False where the instance is not known."""
        known = self.fleet.instances.get(instance_id)
        if known is None:
            return False
        now = self._clock.monotonic()
        self._lease_until[instance_id] = now + self._settings.lease_ms / 1e3
        known.lost = False
        policy.reported(known, now, load.in_flight)
        await self._share(self.registered[instance_id])
        return True

    async def drain(self, instance_id: str, deregister: bool) -> int | None:
        """Send nothing more there; returns the requests in flight, None where the instance is not known."""
        known = self.fleet.instances.get(instance_id)
        if known is None:
            return None
        known.draining = True
        if deregister:
            await self._unshare(instance_id)
            if not known.in_flight:
                self._forget(instance_id)
        return known.in_flight

    def sweep(self) -> list[str]:
        """Mark instances whose lease has run out as lost and forget those that have gone; returns the ones forgotten."""
        now = self._clock.monotonic()
        gone = []
        for instance_id, until in list(self._lease_until.items()):
            known = self.fleet.instances[instance_id]
            if now <= until:
                continue
            if not known.lost:
                log.warning("instance %s is lost: no heartbeat for %d ms", instance_id, self._settings.lease_ms)
            known.lost = True
            if not known.in_flight and now > until + 10 * self._settings.lease_ms / 1e3:
                gone.append(instance_id)
        for instance_id in gone:
            self._forget(instance_id)
        return gone

    async def read_shared(self) -> None:
        """Adopt what other routers have registered. A failure is logged once; memory goes on."""
        if self._store is None:
            return
        try:
            names = sorted(_text(name) for name in await self._store.smembers(INDEX))
            values: list[bytes | str | None] = (
                await self._store.mget([PREFIX + name for name in names]) if names else []
            )
        except (TimeoutError, RedisError, OSError):
            self._note(False)
            return
        self._note(True)
        for name, value in zip(names, values, strict=True):
            if value is None:
                await self._store.srem(INDEX, name)
            else:
                self._adopt_shared(name, value)

    def _adopt_shared(self, name: str, value: bytes | str) -> None:
        try:
            instance = router_pb2.Instance.FromString(value if isinstance(value, bytes) else value.encode())
        except DecodeError:
            log.error("the shared registration of %s cannot be read", name)
            return
        if self.registered.get(name) == instance:
            self._lease_until[name] = self._clock.monotonic() + self._settings.lease_ms / 1e3
            self.fleet.instances[name].lost = False
        else:
            self._adopt(instance, fresh=False)

    def _adopt(self, instance: router_pb2.Instance, fresh: bool) -> None:
        known = self.fleet.instances.get(instance.id)
        now = self._clock.monotonic()
        if known is None or fresh:
            in_flight = known.in_flight if known else 0
            known = self.fleet.instances[instance.id] = policy.Instance(
                instance.id, in_flight=in_flight, advanced_at=now
            )
        known.concurrency = max(1, instance.concurrency)
        known.models = frozenset(
            model.name for model in instance.models if model.state == inference_pb2.MODEL_STATE_READY
        )
        known.capabilities = frozenset(instance.capabilities)
        known.draining = known.lost = False
        self.registered[instance.id] = instance
        self._lease_until[instance.id] = now + self._settings.lease_ms / 1e3

    def _forget(self, instance_id: str) -> None:
        for table in (self.fleet.instances, self.registered, self._lease_until):
            table.pop(instance_id, None)

    async def _share(self, instance: router_pb2.Instance) -> None:
        if self._store is None:
            return
        try:
            async with self._store.pipeline(transaction=False) as pipe:
                pipe.set(PREFIX + instance.id, instance.SerializeToString(), px=self._settings.lease_ms)
                pipe.sadd(INDEX, instance.id)
                await pipe.execute()
        except (TimeoutError, RedisError, OSError):
            self._note(False)

    async def _unshare(self, instance_id: str) -> None:
        if self._store is None:
            return
        try:
            async with self._store.pipeline(transaction=False) as pipe:
                pipe.delete(PREFIX + instance_id)
                pipe.srem(INDEX, instance_id)
                await pipe.execute()
        except (TimeoutError, RedisError, OSError):
            self._note(False)

    def _note(self, shared: bool) -> None:
        if self.shared and not shared:
            log.warning("Redis is unavailable; the registry goes on in memory and is not shared")
        elif shared and not self.shared:
            log.info("Redis is back; the registry is shared again")
        self.shared = shared


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
