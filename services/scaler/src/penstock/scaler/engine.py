"""The loop: demand in, forecasts, decisions, and their effect. What is asked from outside is answered from memory, without the loop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.core.clock import Clock
from penstock.core.errors import Fault
from penstock.core.telemetry import NO_TELEMETRY, Telemetry
from penstock.scaler.actuators import Actuator, Fleet
from penstock.scaler.adapters import KEPT_DECISIONS, LOST, Demand, Store
from penstock.scaler.config import PoolConfig
from penstock.scaler.learning import Learnt
from penstock.scaler.metering import Meter
from penstock.scaler.pool import Decision, Pool, Sample

log = logging.getLogger(__name__)

SHARED_SAMPLES = 60
"""Of what other scalers were told, so many samples are looked through at each tick."""
LEARNT_NOTHING = Learnt((), 1.0)
NOTICE_S = 120.0
"""Time that a notice gives where it does not say."""
Begin = Callable[[str, str], Awaitable[int | None]]
"""Lets the router send no more to an instance; takes its id and a reason, returns None where the router does not know it."""


@dataclass
class Running:
    """One pool, who acts for it, and what was decided: the memory that every answer comes from."""

    pool: Pool
    actuator: Actuator
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    starts: dict[int, float] = field(default_factory=dict)
    fleet: Fleet | None = None
    reported_s: float = -math.inf
    learnt: Learnt | None = None
    serving: int | None = None
    held: int = 0

    def __post_init__(self) -> None:
        self.meter = Meter(self.pool.config.interval_s)

    @property
    def answer(self) -> int:
        """Instances wanted: the last decision; before any, the least, and never zero without one."""
        if self.decisions:
            return self.decisions[0].wanted
        return max(1, self.pool.config.least)

    @property
    def urgent(self) -> tuple[float, float]:
        """What no sample tells yet: work a second of the last few seconds, and work that waits now.

        What a call costs that waits for the first instance is not known: each counts as a second of one.
        """
        return self.meter.burst, self.meter.waiting + self.held * (self.pool.given_capacity or 1.0)

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
        drain: Begin | None = None,
    ) -> None:
        self._drain = drain
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
                await self._recall_learnt(name, running)
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
        """Read demand, decide for each pool, act where this scaler leads. A pool that fails does not hold up the others."""
        try:
            self.leads = not self._left and await self._store.lead(lease_ms)
        except LOST as error:
            log.warning("the store is lost, the lead stays as it is: %s", error)
        if self.leads:
            await self._read_demand()
            await self._read_fleets()
        elif self._demand is not None:
            self._demand.remember(None)
        for name, running in self.pools.items():
            try:
                await self._share(name, running)
                if self.leads:
                    await self._decide(name, running)
                else:
                    await self._follow(name, running)
            except Exception:
                log.exception("%s: not decided, the last answer stands", name)

    async def _follow(self, name: str, running: Running) -> None:
        """Another scaler decides: answer what it decided, and know what it learnt."""
        running.meter.forget()
        try:
            for decision in await self._store.decisions(name, 1):
                if not running.decisions or decision.made_s > running.decisions[0].made_s:
                    running.keep(decision)
            await self._recall_learnt(name, running)
        except LOST as error:
            log.warning("decisions about %s cannot be read: %s", name, error)

    async def _share(self, name: str, running: Running) -> None:
        """Take the samples that other scalers were told."""
        try:
            self._take(name, running, await self._store.samples(name, SHARED_SAMPLES))
        except LOST as error:
            log.warning("samples of %s cannot be read: %s", name, error)

    async def _recall_learnt(self, name: str, running: Running) -> None:
        kept = await self._store.learnt(name)
        if kept is not None and kept != running.learnt:
            running.pool.learnt = running.learnt = kept

    async def report(self, name: str, samples: Sequence[Sample]) -> int:
        """Take samples of a pool. Returns how many were new.

        Raises:
            KeyError: there is no such pool. ValueError: a sample is negative or not finite.
        """
        running = self.pools[name]
        running.reported_s = self._clock.time()
        new = self._take(name, running, samples)
        await self._keep(name, running, new)
        return len(new)

    def _take(self, name: str, running: Running, samples: Sequence[Sample]) -> list[Sample]:
        """Take samples and learn from them. Returns those that were new."""
        pool = running.pool
        before = pool.samples[-1] if pool.samples else None
        taken = pool.take(samples, self._clock.time())
        new = pool.samples[-taken:] if taken else []
        for sample in new:
            if before is not None and running.fleet is not None and running.fleet.seen:
                ready, seconds = running.fleet.ready, pool.config.interval_s
                pool.capacity.saw(sample.work, (before.backlog, sample.backlog), ready, seconds, pool.given_capacity)
            before = sample
        self._learn(name, running)
        return new

    async def _keep(self, name: str, running: Running, new: Sequence[Sample]) -> None:
        try:
            await self._store.keep_samples(name, new, running.pool.most_samples)
        except LOST as error:
            log.warning("samples of %s are not kept: %s", name, error)

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
            if name in seen.costs and not running.pool.config.capacity:
                # An instance computes a millisecond a millisecond, on each of the batches it runs at once.
                running.pool.given_capacity = 1000.0 * seen.concurrency.get(name, 1.0)
            told = now - running.reported_s <= running.pool.config.stale_s
            if told or not seen.knows(name):
                # Demand of this pool is reported, or comes from nowhere yet: silence here is not an idle pool.
                running.meter.forget()
                continue
            ended = running.meter.read(*self._demand.since_last(seen, name), now)
            if ended:
                await self._keep(name, running, self._take(name, running, ended))
        self._demand.remember(seen)

    async def _read_fleets(self) -> None:
        """How many serve and how many calls wait for the first, from who knows: the router."""
        found: dict[str, tuple[int, int]] = {}
        if self._demand is not None:
            try:
                found = await self._demand.fleets(list(self.pools))
            except Fault as fault:
                log.warning("the router cannot be asked: %s", fault)
        for name, running in self.pools.items():
            serving, running.held = found.get(name, (None, 0))
            running.serving = serving

    async def _decide(self, name: str, running: Running) -> None:
        try:
            fleet = await running.actuator.fleet()
        except OSError as error:
            log.warning("%s: the fleet cannot be seen, the last answer stands: %s", name, error)
            return
        if not fleet.seen and running.serving is not None:
            fleet = Fleet(fleet.wanted, running.serving)
        running.fleet = fleet
        now = self._clock.time()
        if fleet.seen:
            await self._note_ready(name, running, fleet.ready, now)
        last = running.decisions[0] if running.decisions else None
        decision = running.pool.decide(fleet.wanted, fleet.ready, now, last.wanted if last else 0, running.urgent)
        decision = replace(decision, on_demand=running.actuator.on_demand(decision.wanted))
        if last is None or (last.wanted, last.reason) != (decision.wanted, decision.reason):
            running.keep(decision)
            try:
                await self._store.keep_decision(decision)
            except LOST as error:
                log.warning("a decision of %s is not kept: %s", name, error)
        if decision.wanted != fleet.wanted and not running.pool.config.dry_run:
            starts = range(fleet.wanted + 1, decision.wanted + 1) if fleet.seen else ()
            running.starts |= dict.fromkeys(starts, now)
            try:
                await running.actuator.scale(decision.wanted)
            except OSError as error:
                log.warning("%s cannot be scaled now, the next tick tries again: %s", name, error)

    async def _note_ready(self, name: str, running: Running, ready: int, now: float) -> None:
        """Learn from starts how long they take, and keep what was learnt."""
        for number in [number for number in running.starts if number <= ready]:
            running.pool.lead_times.add(now - running.starts.pop(number))
        if running.pool.learnt != (running.learnt or LEARNT_NOTHING):
            running.learnt = running.pool.learnt
            try:
                await self._store.keep_learnt(name, running.learnt)
            except LOST as error:
                log.warning("what %s learnt is not kept: %s", name, error)

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

    def plan(self, name: str) -> Decision:
        """What would be decided now, from memory; leaves nothing behind."""
        running = self.pools[name]
        fleet = running.fleet or Fleet(running.answer, running.answer, seen=False)
        memory = running.pool.memory
        decision = running.pool.decide(fleet.wanted, fleet.ready, self._clock.time(), running.answer, running.urgent)
        running.pool.memory = memory
        return replace(decision, on_demand=running.actuator.on_demand(decision.wanted))

    async def replace(self, instance: str, at_s: float = 0.0) -> tuple[bool, bool]:
        """Replace an instance that will be gone at a moment (Unix seconds; 0: in two minutes), then drain it.

        Returns:
            Whether a replacement was started, and whether the instance gets no new work once that serves or time is short: one that no
            pool here runs is drained at the router at once, for whoever runs it replaces it.
        """
        left_s = max(0.0, at_s - self._clock.time()) if at_s else NOTICE_S
        for name, running in self.pools.items():
            try:
                if await running.actuator.replace(instance, left_s):
                    return True, True
            except OSError as error:
                log.warning("%s: no replacement for %s can be started now: %s", name, instance, error)
        drained = await self._drain(instance, "spot_notice") if self._drain is not None else None
        return False, drained is not None

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
