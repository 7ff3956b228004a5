"""Which process holds an instance's id: processes of one service share an identity, so each
registers with a secret of its own, and while its lease runs nobody without that secret may
register, renew or drain the id.

The store keeps a digest of the secret, so that it holds at every router. Without the store each
router knows the digests of what registered there. A process that has crashed without a drain gets
its id back, under a new secret, once the lease of the former one has run out.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import NamedTuple, Protocol

import redis.asyncio
from penstock.router.instances.shared_instances import PREFIX
from penstock.rpc.errors import Fault, invalid
from penstock.rpc.reasons import Reason
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from penstock.service.purity import pure
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

HELD = "penstock:{router}:instance-held-by:"
KEPT_S = 86_400
RENEWED_S = 3_600.0
"""Seconds after which a heartbeat writes the digest again."""
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 16, 64
MAX_REMEMBERED = 65_536

# KEYS: digest and registration of the id. ARGV: digest, seconds to keep it. Takes the id where no
# registration is alive or it is the caller's own, and returns 0; otherwise returns the milliseconds
# that the other's lease has left.
CLAIM = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  local held = redis.call('GET', KEYS[1])
  if held and held ~= ARGV[1] then return math.max(1, redis.call('PTTL', KEYS[2])) end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 0
"""


class Leases(Protocol):
    """The leases as a router knows them."""

    def owns(self, instance_id: str) -> bool:
        """Whether the instance registered here, and at no other router since."""
        ...

    def lease_left_s(self, instance_id: str) -> float:
        """Seconds that its lease has left; 0 for none."""
        ...


class Holder(NamedTuple):
    """Who registered here, and when the store was told."""

    digest: str
    written_at_s: float


class Holders:
    """The digests by instance id.

    Args:
        store: shared with other routers; None for none.
    """

    def __init__(self, store: redis.asyncio.Redis | None, leases: Leases, clock: Clock) -> None:
        self._store = store
        self._leases = leases
        self._clock = clock
        self._known: BoundedMap[str, Holder] = BoundedMap(MAX_REMEMBERED)

    async def claim(self, instance_id: str, secret: bytes) -> None:
        """Bind an id to whoever has the secret, before it is registered.

        Raises:
            Fault: INVALID_ARGUMENT: such a secret could be guessed. PERMISSION_DENIED with the
                time that is left: another holds the id.
        """
        check_secret(secret)
        digest = digest_of(secret)
        left_s = await self._held_elsewhere_s(instance_id, digest)
        if left_s > 0:
            raise _held(instance_id, left_s)
        self._known.put(instance_id, Holder(digest, self._clock.monotonic()))

    async def check(self, instance_id: str, secret: bytes) -> None:
        """Let nobody speak for an instance but whoever registered it.

        Raises:
            Fault: PERMISSION_DENIED.
        """
        digest = digest_of(secret)
        known = self._registered_here(instance_id)
        held = known.digest if known is not None else await self._read(instance_id)
        if held is not None and not hmac.compare_digest(held, digest):
            raise _held(instance_id, self._leases.lease_left_s(instance_id))
        if known is not None and self._clock.monotonic() - known.written_at_s > RENEWED_S:
            await self.claim(instance_id, secret)

    def release(self, instance_id: str) -> None:
        """Forget who held the id of an instance that was deregistered."""
        self._known.pop(instance_id)

    def _registered_here(self, instance_id: str) -> Holder | None:
        return self._known.get(instance_id) if self._leases.owns(instance_id) else None

    async def _held_elsewhere_s(self, instance_id: str, digest: str) -> float:
        """Seconds that the lease of another holder has left, 0 where the id is the caller's now."""
        if self._store is not None:
            try:
                keys = (HELD + instance_id, PREFIX + instance_id)
                return int(await self._store.eval(CLAIM, 2, *keys, digest, KEPT_S)) / 1e3
            except (TimeoutError, RedisError, OSError):
                log.warning("the store does not say who holds instance %s", instance_id)
        known = self._registered_here(instance_id)
        if known is None or hmac.compare_digest(known.digest, digest):
            return 0.0
        return self._leases.lease_left_s(instance_id)

    async def _read(self, instance_id: str) -> str | None:
        if self._store is None:
            return None
        try:
            held: bytes | str | None = await self._store.get(HELD + instance_id)
        except (TimeoutError, RedisError, OSError):
            return None
        return held.decode() if isinstance(held, bytes) else held


@pure
def digest_of(secret: bytes) -> str:
    """What is kept of a secret; empty for none. Secrets are random, so a plain hash hides them."""
    return hashlib.sha256(secret).hexdigest() if secret else ""


@pure
def check_secret(secret: bytes) -> None:
    """Raise INVALID_ARGUMENT for a secret that could be guessed, or is no secret of ours."""
    if secret and not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise invalid(
            "registration_secret",
            f"has {len(secret)} bytes; send {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random ones",
        )


def _held(instance_id: str, left_s: float) -> Fault:
    log.warning("instance %s: refused a process that did not register it", instance_id)
    return Fault(
        Reason.PERMISSION_DENIED,
        f"instance.id: {instance_id!r} is held by another process for {left_s:.1f} s, unless it "
        "renews its lease; wait for that, or choose another id",
        field="instance.id",
        retry_after_s=left_s,
    )
