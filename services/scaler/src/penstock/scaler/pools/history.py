"""A pool's history, shared and kept through the store; where that is lost the loop goes on without,
and it is said.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from penstock.scaler.decide.measurements import Calibration
from penstock.scaler.pools.planner import Decision
from penstock.scaler.pools.pool import Pool
from penstock.scaler.pools.store import KEPT_DECISIONS, LOST, ScalerStore
from penstock.scaler.samples import Sample

log = logging.getLogger(__name__)

SHARED_SAMPLES = 60
"""Of what other scalers were told, so many samples are looked through at each tick."""
LEARNT_NOTHING = Calibration((), 1.0)


class StoreSync:
    """The store as the loop sees it: no call raises because Redis is away."""

    def __init__(self, store: ScalerStore) -> None:
        self._store = store

    async def recall(self, running: Pool, now_s: float) -> None:
        """Take up history and last decisions at the start; without the store it begins with
        nothing.
        """
        name = running.pool.config.name
        try:
            running.pool.take(await self._store.samples(name), now_s)
            running.pool.measured_at = (
                -math.inf
            )  # history tells what is usual, not what is asked for now
            running.decisions.extend(await self._store.decisions(name, KEPT_DECISIONS))
            await self._recall_learnt(running)
        except LOST as error:
            log.warning("the history of %s cannot be read: %s", name, error)

    async def shared(self, running: Pool) -> list[Sample]:
        """Samples that other scalers were told lately, among those told here."""
        name = running.pool.config.name
        try:
            return await self._store.samples(name, SHARED_SAMPLES)
        except LOST as error:
            log.warning("samples of %s cannot be read: %s", name, error)
            return []

    async def follow(self, running: Pool) -> None:
        """Another scaler decides: answer what it decided, and know what it learnt."""
        name = running.pool.config.name
        try:
            for decision in await self._store.decisions(name, 1):
                if not running.decisions or decision.made_s > running.decisions[0].made_s:
                    running.keep(decision)
            await self._recall_learnt(running)
        except LOST as error:
            log.warning("decisions about %s cannot be read: %s", name, error)

    async def keep_samples(self, running: Pool, new: Sequence[Sample]) -> None:
        """Keep new samples."""
        name = running.pool.config.name
        try:
            await self._store.keep_samples(name, new, running.pool.most_samples)
        except LOST as error:
            log.warning("samples of %s are not kept: %s", name, error)

    async def keep_decision(self, decision: Decision) -> None:
        """Keep a decision."""
        try:
            await self._store.keep_decision(decision)
        except LOST as error:
            log.warning("a decision of %s is not kept: %s", decision.pool, error)

    async def keep_learnt(self, running: Pool) -> None:
        """Keep what decisions taught, where that is new."""
        if running.pool.learnt == (running.learnt or LEARNT_NOTHING):
            return
        running.learnt = running.pool.learnt
        name = running.pool.config.name
        try:
            await self._store.keep_learnt(name, running.learnt)
        except LOST as error:
            log.warning("what %s learnt is not kept: %s", name, error)

    async def pass_on(self, instance: str, at_s: float) -> bool:
        """Tell the one that leads of a notice; False where it cannot be told."""
        try:
            return await self._store.pass_on(instance, at_s)
        except LOST as error:
            log.warning("the notice about %s cannot be passed on: %s", instance, error)
            return False

    async def passed_on(self) -> list[tuple[str, float]]:
        """Notices that other scalers were given."""
        try:
            return await self._store.passed_on()
        except LOST as error:
            log.warning("notices given to others cannot be read: %s", error)
            return []

    async def _recall_learnt(self, running: Pool) -> None:
        kept = await self._store.learnt(running.pool.config.name)
        if kept is not None and kept != running.learnt:
            running.pool.learnt = running.learnt = kept
