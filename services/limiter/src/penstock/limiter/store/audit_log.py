"""The audit log: what operators have changed, by whom and why, in a stream of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis.asyncio
from penstock.limiter.store.errors import store_errors_as_lost

STREAM = "penstock:limiter:changes"
MAX_CHANGES = 100_000
"""Changes that are kept; the oldest are dropped first."""


class AuditLog:
    """Records changes and lists them; both raise StoreLost where the store does not answer."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def record(self, change: Mapping[str, str]) -> None:
        """Append one change: `operator`, `action`, `target` and `reason`."""
        entry: dict[Any, Any] = dict(change)
        with store_errors_as_lost():
            await self._client.xadd(STREAM, entry, maxlen=MAX_CHANGES, approximate=True)

    async def latest(self, count: int) -> list[tuple[int, dict[str, str]]]:
        """The latest changes, newest first, each with its Unix time in milliseconds."""
        with store_errors_as_lost():
            rows: list[Any] = await self._client.xrevrange(STREAM, count=count) or []
        return [
            (
                int(entry_id.split(b"-")[0]),
                {key.decode(): value.decode() for key, value in fields.items()},
            )
            for entry_id, fields in rows
        ]
