"""Which service registered an instance: no other may take its id over, renew it or drain it.

The identity is kept in the store, so that it holds at every router and after a restart, and expires
a day after the instance was last heard of. Without a store each router remembers its own.
"""

from __future__ import annotations

import logging

import redis.asyncio
from penstock.rpc.callers import REGISTERS
from penstock.rpc.errors import Fault, denied
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

PREFIX = "penstock:router:registered-by:"
KEPT_S = 86_400
RENEWED_S = 3_600.0
"""Seconds after which a heartbeat writes the identity again."""
MAX_REMEMBERED = 65_536


class Ownership:
    """The identities by instance id.

    Args:
        store: shared with other routers; None for none.
    """

    def __init__(self, store: redis.asyncio.Redis | None, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: BoundedMap[str, tuple[str, float]] = BoundedMap(MAX_REMEMBERED)

    async def claim(self, instance_id: str, identity: str) -> None:
        """Bind an id to who registers it; `identity` is empty where callers have none.

        Raises:
            Fault: PERMISSION_DENIED: it is bound to another.
        """
        now = self._clock.monotonic()
        known = self._known.get(instance_id)
        if known is not None and known[0] == identity and now - known[1] < RENEWED_S:
            return
        owner = known[0] if known is not None else identity
        owner = await self._claimed(instance_id, owner)
        self._known.put(instance_id, (owner, now))
        if owner != identity:
            raise _bound_to_another(instance_id, identity)

    async def check(self, instance_id: str, identity: str) -> None:
        """Let nobody but the owner speak for an instance, or a service that does not register.

        Raises:
            Fault: PERMISSION_DENIED.
        """
        if identity in REGISTERS:
            await self.claim(instance_id, identity)

    async def _claimed(self, instance_id: str, identity: str) -> str:
        """Write the identity where none is written; returns the one that is."""
        if self._store is None:
            return identity
        key = PREFIX + instance_id
        try:
            await self._store.set(key, identity, nx=True, ex=KEPT_S)
            written: bytes | str | None = await self._store.getex(key, ex=KEPT_S)
        except (TimeoutError, RedisError, OSError):
            return identity
        if written is None:
            return identity
        return written.decode() if isinstance(written, bytes) else written


def _bound_to_another(instance_id: str, identity: str) -> Fault:
    log.warning(
        "%s tried to speak for instance %s, which another service has registered",
        identity or "a caller without identity",
        instance_id,
    )
    return denied(
        f"instance.id: {instance_id!r} is registered by another service; choose another id"
    )
