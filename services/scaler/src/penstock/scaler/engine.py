"""The loop: demand in, forecasts, decisions, and their effect. What is asked from outside is answered from memory, without the loop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.core.clock import Clock
from penstock.core.errors import Fault
from penstock.core.telemetry import NO_TELEMETRY, Telemetry
from penstock.scaler.actuators import Actuator
from penstock.scaler.adapters import KEPT_DECISIONS, LOST, Demand, Store
from penstock.scaler.config import PoolConfig
from penstock.scaler.pool import Decision, Pool, Sample

log = logging.getLogger(__name__)


@dataclass
class Running:
    """One pool, who acts for it, and what was decided: the memory that every answer comes from."""

    pool: Pool
    actuator: Actuator
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    starts: dict[int, float] = field(default_factory=dict)
    arrived: float = 0.0
    began_s: float | None = None

    @property
    def answer(self) -> int:
        """Instances wanted: the last decision; before any, the least, and never zero without one."""
        if self.decisions:
            return self.decisions[0].wanted
        return max(1, self.pool.config.least)

    def keep(self, decision: Decision) -> None:
        """Put a decision in force and wake those who watch."""
        self.decisions.appendleft(decision)
        self.changed.set()
        self.changed = asyncio.Event()


class Engine:
    """Decides for every pool every few seconds. Owner: the service's main, which awaits `run` in a task and then `close`."""

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        actuators: Mapping[str, Actuator],
        store: Store,
        clock: Clock,
        demand: Demand | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self.pools = {config.name: Running(Pool(config), actuators[config.name]) for config in pools}
        self._store, self._clock, self._demand = store, clock, demand
        self._fits: dict[str, asyncio.Task[None]] = {}
        self.leads, self._left = True, False
        for name, running in self.pools.items():
            self._watch(name, running, telemetry)

    def _watch(self, name: str, running: Running, telemetry: Telemetry) -> None:
        pool = running.pool
        telemetry.gauge(
            f"penstock.scaler.wanted.{name}", "{instance}", "Instances wanted", lambda: float(running.answer)
        )
        telemetry.gauge(
            f"penstock.scaler.fallen_back.{name}",
            "1",
            "1 while the reactive rules decide",
            lambda: float(pool.fallen_back),
        )
        telemetry.gauge(
            f"penstock.scaler.coverage.{name}", "1", "Share of samples below the forecast quantile", pool.coverage
        )

    async def recall(self) -> None:
        """Take up history and last decisions; without the store it begins with nothing, and says so."""
        for name, running in self.pools.items():
            try:
                running.pool.take(await self._store.samples(name), self._clock.time())
                running.pool.measured_at = -math.inf  # history tells what is usual, not what is asked for now
                running.decisions.extend(await self._store.decisions(name, KEPT_DECISIONS))
            except LOST as error:
                log.warning("the history of %s cannot be read: %s", name, error)
            self._learn(name, running)

    async def run(self, tick_s: float, lease_ms: int) -> None:
        """Tick for ever; one bad tick is logged, and the last answers stand."""
        while True:
            try:
                await self.tick(lease_ms)
            except Exception:
                log.exception("a tick failed; the last answers stand")
            await self._clock.sleep(tick_s)

    async def tick(self, lease_ms: int = 15_000) -> None:
        """Read demand, decide for each pool, act where this scaler leads."""
        try:
            self.leads = not self._left and await self._store.lead(lease_ms)
        except LOST as error:
            log.warning("the store is lost, the lead stays as it is: %s", error)
        if not self.leads:
            await self._follow()
            return
        await self._read_demand()
        for name, running in self.pools.items():
            await self._decide(name, running)

    async def _follow(self) -> None:
        """Another scaler decides: answer what it decided."""
        for name, running in self.pools.items():
            for decision in await self._store.decisions(name, 1):
                if not running.decisions or decision.made_s > running.decisions[0].made_s:
                    running.keep(decision)

    async def report(self, name: str, samples: Sequence[Sample]) -> int:
        """Take samples of a pool. Returns how many were new.

        Raises:
            KeyError: there is no such pool. ValueError: a sample is negative or not finite.
        """
        running = self.pools[name]
        pool = running.pool
        before = pool.samples[-1] if pool.samples else None
        taken = pool.take(samples, self._clock.time())
        new = pool.samples[-taken:] if taken else []
        for sample in new:
            if before is not None:
                ready = running.decisions[0].current if running.decisions else 0
                seconds = pool.config.interval_s
                pool.capacity.saw(sample.work, (before.backlog, sample.backlog), ready, seconds, pool.given_capacity)
            before = sample
        try:
            await self._store.keep_samples(name, new, pool.most_samples)
        except LOST as error:
            log.warning("samples of %s are not kept: %s", name, error)
        self._learn(name, running)
        return taken

    async def _read_demand(self) -> None:
        if self._demand is None:
            return
        try:
            seen = await self._demand.read()
        except Fault as fault:
            log.warning("demand cannot be read: %s", fault)
            return
        if seen is None:
            return
        now = self._clock.time()
        for name, running in self.pools.items():
            work, waiting = self._demand.since_last(seen, name)
            if name in seen.costs and not running.pool.config.capacity:
                # An instance computes a millisecond a millisecond, on each of the batches it runs at once.
                running.pool.given_capacity = 1000.0 * seen.concurrency.get(name, 1.0)
            await self._close_interval(name, running, (work, waiting), now)
        self._demand.remember(seen)

    async def _close_interval(self, name: str, running: Running, found: tuple[float, float], now: float) -> None:
        interval_s = running.pool.config.interval_s
        began = running.began_s if running.began_s is not None else now // interval_s * interval_s
        running.began_s = began
        running.arrived += found[0]
        if now - began >= interval_s:
            sample = Sample(began, running.arrived * interval_s / (now - began), found[1])
            running.arrived, running.began_s = 0.0, now // interval_s * interval_s
            await self.report(name, [sample])

    async def _decide(self, name: str, running: Running) -> None:
        try:
            fleet = await running.actuator.fleet()
        except OSError as error:
            log.warning("%s: the fleet cannot be seen, the last answer stands: %s", name, error)
            return
        now = self._clock.time()
        self._note_ready(running, fleet.ready, now)
        last = running.decisions[0] if running.decisions else None
        decision = running.pool.decide(fleet.wanted, fleet.ready, now, last.wanted if last else 0)
        if last is None or (last.wanted, last.reason) != (decision.wanted, decision.reason):
            running.keep(decision)
            try:
                await self._store.keep_decision(decision)
            except LOST as error:
                log.warning("a decision of %s is not kept: %s", name, error)
        if decision.wanted != fleet.wanted and not running.pool.config.dry_run:
            for number in range(fleet.wanted + 1, decision.wanted + 1):
                running.starts[number] = now
            try:
                await running.actuator.scale(decision.wanted, decision.on_demand)
            except OSError as error:
                log.warning("%s cannot be scaled now, the next tick tries again: %s", name, error)

    def _note_ready(self, running: Running, ready: int, now: float) -> None:
        for number in [number for number in running.starts if number <= ready]:
            running.pool.lead_times.add(now - running.starts.pop(number))

    def _learn(self, name: str, running: Running) -> None:
        """Fit what is due in a thread, one at a time for a pool; a failed fit leaves the old one in force."""
        if name not in self._fits and (running.pool.rebuild_due or running.pool.due()):
            task = asyncio.create_task(self._fit(running.pool), name=f"fit {name}")
            self._fits[name] = task
            task.add_done_callback(lambda _: self._fits.pop(name, None))

    @staticmethod
    async def _fit(pool: Pool) -> None:
        try:
            if pool.rebuild_due:
                pool.install(await asyncio.to_thread(pool.rebuild))
            for forecaster in pool.due():
                forecaster.adopt(await asyncio.to_thread(forecaster.train))
        except Exception:
            log.exception("fitting %s failed; the experts that stand go on", pool.config.name)

    async def settled(self) -> None:
        """Wait until no fit runs."""
        while self._fits:
            await asyncio.gather(*self._fits.values())

    async def replace(self, instance: str) -> bool:
        """Start a replacement for an instance that will go, then drain it. True where one was started."""
        started = [await running.actuator.replace(instance) for running in self.pools.values()]
        return any(started)

    async def leave(self) -> None:
        """This machine will go: drain every instance that runs on it, decide no more, and give up the lead."""
        self.leads, self._left = False, True
        for running in self.pools.values():
            await running.actuator.close()
        await self._store.leave()

    async def close(self) -> None:
        """End fits, children and the lead."""
        for task in self._fits.values():
            task.cancel()
        for running in self.pools.values():
            await running.actuator.close()
        try:
            await self._store.leave()
        except LOST as error:
            log.warning("the lead runs out by itself: %s", error)
