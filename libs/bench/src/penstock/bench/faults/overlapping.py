"""Kills (SIGKILL) and stops (SIGSTOP) of several processes at a time."""

from __future__ import annotations

import asyncio
import functools
from random import Random

from penstock.bench.faults.rig import ROUTERS, STORE, Rig

TARGETS = ("limiter", *ROUTERS, STORE)


class Faults:
    """Kills and stops processes, several at a time but for the store."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._kills = self._stops = 0
        self._hit: set[str] = set()
        """Processes that are away."""
        self._changed = asyncio.Condition()

    async def inflict(self, faults: int, rng: Random) -> tuple[int, int]:
        """Inflict so many faults, one every 0.1 to 0.6 s where their targets are there; returns
        kills and stops once everything serves again.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(faults):
                target, kills = rng.choice(TARGETS), rng.random() < 0.5
                stopped_s = rng.choice((0.1, 0.3, 1.0, 3.0))
                async with self._changed:
                    await self._changed.wait_for(functools.partial(self._may_hit, target))
                    self._hit.add(target)
                group.create_task(self._one(target, None if kills else stopped_s))
                await asyncio.sleep(rng.uniform(0.1, 0.6))
        return self._kills, self._stops

    def _may_hit(self, target: str) -> bool:
        if target == STORE:
            return not self._hit
        return target not in self._hit and STORE not in self._hit

    async def _one(self, target: str, stopped_s: float | None) -> None:
        """One fault; without a time the process is killed and started again."""
        if stopped_s is None:
            self._kills += 1
            await self._rig.kill(target)
        else:
            self._stops += 1
            await self._rig.stop_for(target, stopped_s)
        async with self._changed:
            self._hit.discard(target)
            self._changed.notify_all()
