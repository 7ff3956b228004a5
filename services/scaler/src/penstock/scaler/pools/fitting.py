"""Fits of the learned experts beside the loop: one at a time for a pool, in a thread.

A failed fit leaves the old one in force.
"""

from __future__ import annotations

import asyncio
import logging

from penstock.scaler.pools.planner import PoolPlanner

log = logging.getLogger(__name__)


class BackgroundFits:
    """Owner of every fit's task until it ends."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, pool: PoolPlanner) -> None:
        """Fit what is due, unless a fit of this pool runs."""
        name = pool.config.name
        if name not in self._tasks and (pool.rebuild_due or pool.due()):
            task = asyncio.create_task(_fit(pool), name=f"fit {name}")
            self._tasks[name] = task
            task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def settled(self) -> None:
        """Wait until no fit runs."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values())

    def cancel(self) -> None:
        """Give up what runs; a thread that has begun ends by itself and changes nothing."""
        for task in self._tasks.values():
            task.cancel()


async def _fit(pool: PoolPlanner) -> None:
    try:
        if pool.rebuild_due:
            pool.install(await asyncio.to_thread(pool.rebuild))
        for forecaster in pool.due():
            forecaster.adopt(await asyncio.to_thread(forecaster.train))
    except Exception:
        log.exception("fitting %s failed; the experts that stand go on", pool.config.name)
