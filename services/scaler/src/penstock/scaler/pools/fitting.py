"""Fits of forecasting experts in the background, one at a time for each pool, in a thread."""

from __future__ import annotations

import asyncio
import logging

from penstock.scaler.pools.planner import PoolPlanner

log = logging.getLogger(__name__)


class BackgroundFits:
    """Runs fits; owner of their tasks until they end."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, planner: PoolPlanner) -> None:
        """Fit what is due, unless a fit of this pool runs."""
        name = planner.config.name
        if name in self._tasks:
            return
        task = asyncio.create_task(_fit(planner), name=f"fit {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def wait(self) -> None:
        """Wait until no fit runs."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values())

    def cancel(self) -> None:
        """Cancel all fits. A thread that has begun runs to its end and changes nothing."""
        for task in self._tasks.values():
            task.cancel()


async def _fit(planner: PoolPlanner) -> None:
    try:
        if planner.rebuild_due:
            planner.install(await asyncio.to_thread(planner.rebuild))
        for forecaster in planner.forecasts.due():
            forecaster.adopt(await asyncio.to_thread(forecaster.train))
    except Exception:
        log.exception("fitting %s failed; the experts fitted before stay", planner.config.name)
