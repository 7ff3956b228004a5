"""What routers share of instances through the store.

- `penstock:{router}:instance:<id>`: a registration, which expires with its lease;
- `penstock:{router}:instances`: the ids of all of them;
- `penstock:{router}:draining`: ids that get no new work;
- `penstock:{router}:routers`: the routers that live, by the end of their leases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import redis.asyncio
from penstock.api.router.v1 import router_pb2
from penstock.router.instances.cold_start_queue import ColdStartQueue
from penstock.router.instances.shared_cold_start import ask_exchange, learn, text

PREFIX = "penstock:{router}:instance:"
INDEX = "penstock:{router}:instances"
DRAINING = "penstock:{router}:draining"
ROUTERS = "penstock:{router}:routers"

COUNT_ROUTERS = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], ms + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
return redis.call('ZCARD', KEYS[1])
"""
"""Say that this router lives, and count those that do; the store tells the time."""


class SharedView(NamedTuple):
    """What the store says now."""

    routers: int
    draining: frozenset[str]
    registrations: Mapping[str, bytes | str]
    """By id, of those whose lease runs."""
    missing: Collection[str] = ()
    """Ids whose lease was to be renewed and is not there."""


class SharedInstances:
    """This router's end of the store; raises redis' own errors. The client belongs to whoever made
    it.
    """

    def __init__(self, store: redis.asyncio.Redis, router: str, lease_ms: int) -> None:
        self._store = store
        self._router = router
        self._lease_ms = lease_ms
        self._router_lease_ms = 4 * lease_ms

    async def exchange(
        self, cold_starts: ColdStartQueue, renewed: Sequence[str] = ()
    ) -> SharedView:
        """Say that this router lives, whose leases it has renewed and who waits here; returns what
        is shared. The queue learns who waits elsewhere.

        A renewal leaves a registration as it is: the instance may have gone to another router.
        """
        async with self._store.pipeline(transaction=False) as pipe:
            for instance_id in renewed:
                pipe.pexpire(PREFIX + instance_id, self._lease_ms)
            pipe.eval(COUNT_ROUTERS, 1, ROUTERS, self._router, self._router_lease_ms)
            pipe.smembers(INDEX)
            pipe.smembers(DRAINING)
            ask_exchange(pipe, self._router, self._router_lease_ms, cold_starts)
            *found, routers, ids, draining, exchanged = await pipe.execute()
        learn(exchanged, cold_starts)
        missing = [one for one, is_there in zip(renewed, found, strict=True) if not is_there]
        registrations = await self._registrations(sorted(text(name) for name in ids))
        return SharedView(int(routers), frozenset(map(text, draining)), registrations, missing)

    async def _registrations(self, ids: list[str]) -> Mapping[str, bytes | str]:
        """The registrations of these ids; one whose lease has run out leaves the index."""
        if not ids:
            return {}
        values = await self._store.mget([PREFIX + name for name in ids])
        if expired := [name for name, value in zip(ids, values, strict=True) if value is None]:
            await self._store.srem(INDEX, *expired)
        return {name: value for name, value in zip(ids, values, strict=True) if value is not None}

    async def write(self, instance: router_pb2.Instance, *, fresh: bool) -> None:
        """Share a registration; `fresh`: it gets work again, whoever drained it before."""
        async with self._store.pipeline(transaction=False) as pipe:
            pipe.set(PREFIX + instance.id, instance.SerializeToString(), px=self._lease_ms)
            pipe.sadd(INDEX, instance.id)
            if fresh:
                pipe.srem(DRAINING, instance.id)
            await pipe.execute()

    async def drain(self, instance_id: str, *, deregister: bool) -> None:
        """Have no router send new work to an instance, or all forget it."""
        async with self._store.pipeline(transaction=False) as pipe:
            if deregister:
                pipe.delete(PREFIX + instance_id)
                pipe.srem(INDEX, instance_id)
                pipe.srem(DRAINING, instance_id)
            else:
                pipe.sadd(DRAINING, instance_id)
            await pipe.execute()
