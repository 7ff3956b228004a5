"""Where the receipts of all edges are kept: the latest of each caller, for a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

import redis.asyncio

Batch = dict[str, bytes]
"""Serialised receipts by their identifiers."""

SAVE = """
for i = 3, #ARGV, 2 do
    if redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
        redis.call('RPUSH', KEYS[2], ARGV[i])
    end
end
while redis.call('LLEN', KEYS[2]) > tonumber(ARGV[2]) do
    redis.call('HDEL', KEYS[1], redis.call('LPOP', KEYS[2]))
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
"""
"""KEYS: a caller's receipts by identifier; the identifiers, oldest first. ARGV: milliseconds for
which they are kept after the last one, receipts that are kept, then pairs of identifier and
receipt.
"""


class ReceiptBounds(NamedTuple):
    """How much is kept of one caller, and for how long."""

    ttl_s: int = 24 * 3600
    """After its latest receipt."""
    receipts: int = 2_000


class ReceiptStore(Protocol):
    """The store. `caller` is whom receipts belong to: nobody else finds them."""

    async def save(self, caller: str, batch: Mapping[str, bytes]) -> None:
        """Keep receipts; the oldest of the caller make room."""
        ...

    async def find(self, caller: str, request_id: str) -> bytes | None:
        """A receipt; None where it is not kept."""
        ...


class RedisReceiptStore:
    """See ReceiptStore. Raises redis' own errors.

    The keys of a caller share a hash tag, so that a cluster keeps them together.
    """

    def __init__(self, client: redis.asyncio.Redis, bounds: ReceiptBounds) -> None:
        self._client = client
        self._bounds = bounds

    async def save(self, caller: str, batch: Mapping[str, bytes]) -> None:
        given: list[str | bytes] = []
        for request_id, packed in batch.items():
            given += [request_id, packed]
        at, (ttl_s, receipts) = _prefix(caller), self._bounds
        await self._client.eval(SAVE, 2, f"{at}kept", f"{at}ids", ttl_s * 1000, receipts, *given)

    async def find(self, caller: str, request_id: str) -> bytes | None:
        found = await self._client.hget(f"{_prefix(caller)}kept", request_id)
        return cast("bytes | None", found)


def _prefix(caller: str) -> str:
    return f"penstock:receipts:{{{caller}}}:"
