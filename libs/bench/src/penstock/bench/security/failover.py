"""What a failover by Sentinel takes with it: settlements are made through sentinels, the primary is
killed, and the server that takes its place is asked for each settlement that was answered.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from penstock.bench.faults.crash_loss import Loss, loss_of, settle_until_killed
from penstock.service.store import open_store
from penstock.testkit.eventually import eventually
from penstock.testkit.store_servers import watched_store
from redis.exceptions import RedisError

FAILOVER_TIMEOUT_S = 60.0


async def measure(folder: Path, seed: int) -> Loss:
    """One failover, at a moment drawn by `seed`."""
    async with watched_store(folder) as watched:
        after_s = Random(seed).uniform(1.2, 3.0)
        kill = watched.primary.kill
        answered = await settle_until_killed(watched.url, True, after_s, kill)
        await _wait_for_primary(watched.url)
        return await loss_of(watched.url, answered)


async def _wait_for_primary(url: str) -> None:
    async with open_store(url, retries=0) as client:

        async def writes() -> bool:
            return bool(await client.set("penstock:probe", 1))

        await eventually(writes, FAILOVER_TIMEOUT_S, not_yet=(RedisError, OSError))
