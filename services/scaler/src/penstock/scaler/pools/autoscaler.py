"""The loop: demand in, forecasts, decisions, and their effect.

What is asked from outside is answered from memory, without the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from penstock.otel.telemetry import NO_TELEMETRY, Telemetry
from penstock.rpc.errors import Fault
from penstock.scaler.actuate.actuator import Actuator, FleetStatus
from penstock.scaler.pools.fitting import BackgroundFits
from penstock.scaler.pools.history import StoreSync
from penstock.scaler.pools.planner import Decision, PoolPlanner
from penstock.scaler.pools.pool import Pool
from penstock.scaler.pools.store import LOST, DemandSource, ScalerStore
from penstock.scaler.samples import Sample
from penstock.scaler.settings import PoolConfig
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

NOTICE_S = 120.0
"""Time that a notice gives where it does not say."""
Begin = Callable[[str, str], Awaitable[int | None]]
"""Lets the router send no more to an instance; takes its id and a reason, returns None where the
router does not know it.
"""


class Autoscaler:
    """Decides for every pool every few seconds.

    Owner: the service's main, which awaits `run` in a task and then `close`.
    """

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        actuators: Mapping[str, Actuator],
        store: ScalerStore,
        clock: Clock,
        demand: DemandSource | None = None,
        telemetry: Telemetry = NO_TELEMETRY,
        drain: Begin | None = None,
    ) -> None:
        self._drain = drain
        self.pools = {
            config.name: Pool(PoolPlanner(config), actuators[config.name]) for config in pools
        }
        self._store, self._clock, self._demand = store, clock, demand
        self._history, self._fits = StoreSync(store), BackgroundFits()
        self.leads, self._left = True, False
        for running in self.pools.values():
            running.show(telemetry)

    async def recall(self) -> None:
        """Take up history and last decisions; without the store it begins with nothing, and says
        so.
        """
        for running in self.pools.values():
            await self._history.recall(running, self._clock.time())
            self._fits.start(running.pool)

    async def run(self, tick_s: float, lease_ms: int) -> None:
        """Tick for ever; one bad tick is logged, and the last answers stand."""
        while True:
            try:
                await self.tick(lease_ms)
            except Exception:
                log.exception("a tick failed; the last answers stand")
            await self._clock.sleep(tick_s)

    async def tick(self, lease_ms: int = 15_000) -> None:
        """Read demand, decide for each pool, act where this scaler leads.

        A pool that fails does not hold up the others.
        """
        try:
            self.leads = not self._left and await self._store.lead(lease_ms)
        except LOST as error:
            log.warning("the store is lost, the lead stays as it is: %s", error)
        if self.leads:
            await self._read_demand()
            await self._read_fleets()
            for instance, at_s in await self._history.passed_on():
                await self.replace(instance, at_s)
        elif self._demand is not None:
            self._demand.remember(None)
        for name, running in self.pools.items():
            try:
                self._take(running, await self._history.shared(running))
                if self.leads:
                    await self._decide(name, running)
                else:
                    running.meter.forget()
                    await self._history.follow(running)
            except Exception:
                log.exception("%s: not decided, the last answer stands", name)

    async def report(self, name: str, samples: Sequence[Sample]) -> int:
        """Take samples of a pool. Returns how many were new.

        Raises:
            KeyError: there is no such pool. ValueError: a sample is negative or not finite.
        """
        running = self.pools[name]
        running.reported_s = self._clock.time()
        new = self._take(running, samples)
        await self._history.keep_samples(running, new)
        return len(new)

    def _take(self, running: Pool, samples: Sequence[Sample]) -> list[Sample]:
        """Take samples and learn from them. Returns those that were new."""
        new = running.take(samples, self._clock.time())
        self._fits.start(running.pool)
        return new

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
                # An instance computes a millisecond a millisecond, on each of the batches it runs
                # at once.
                running.pool.given_capacity = 1000.0 * seen.concurrency.get(name, 1.0)
            told = now - running.reported_s <= running.pool.config.stale_s
            if told or not seen.knows(name):
                # Demand of this pool is reported, or comes from nowhere yet: silence here is not an
                # idle pool.
                running.meter.forget()
                continue
            ended = running.meter.read(*self._demand.since_last(seen, name), now)
            if ended:
                await self._history.keep_samples(running, self._take(running, ended))
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

    async def _decide(self, name: str, running: Pool) -> None:
        try:
            fleet = await running.actuator.fleet()
        except OSError as error:
            log.warning("%s: the fleet cannot be seen, the last answer stands: %s", name, error)
            return
        if not fleet.seen and running.serving is not None:
            fleet = FleetStatus(fleet.wanted, running.serving)
        running.fleet = fleet
        now = self._clock.time()
        if fleet.seen:
            running.started(fleet.ready, now)
            await self._history.keep_learnt(running)
        last = running.decisions[0] if running.decisions else None
        decision = running.pool.decide(
            fleet.wanted, fleet.ready, now, last.wanted if last else 0, running.urgent
        )
        decision = replace(decision, on_demand=running.actuator.on_demand(decision.wanted))
        if last is None or (last.wanted, last.reason) != (decision.wanted, decision.reason):
            running.keep(decision)
            await self._history.keep_decision(decision)
        if decision.wanted != fleet.wanted and not running.pool.config.dry_run:
            starts = range(fleet.wanted + 1, decision.wanted + 1) if fleet.seen else ()
            running.starts |= dict.fromkeys(starts, now)
            try:
                await running.actuator.scale(decision.wanted)
            except OSError as error:
                log.warning("%s cannot be scaled now, the next tick tries again: %s", name, error)

    async def settled(self) -> None:
        """Wait until no fit runs."""
        await self._fits.settled()

    def plan(self, name: str) -> Decision:
        """What would be decided now, from memory; leaves nothing behind."""
        running = self.pools[name]
        fleet = running.fleet or FleetStatus(running.answer, running.answer, seen=False)
        memory = running.pool.memory
        decision = running.pool.decide(
            fleet.wanted, fleet.ready, self._clock.time(), running.answer, running.urgent
        )
        running.pool.memory = memory
        return replace(decision, on_demand=running.actuator.on_demand(decision.wanted))

    async def replace(self, instance: str, at_s: float = 0.0) -> tuple[bool, bool]:
        """Replace an instance that will be gone at a moment (Unix seconds; 0: in two minutes), then
        drain it.

        Returns:
            Whether a replacement was started, and whether the instance gets no new work once that
                serves or time is short: one that no
            pool here runs is drained at the router at once, for whoever runs it replaces it. A
                scaler that does not lead passes the notice
            to the one that does, which acts at its next tick.
        """
        if not self.leads and await self._history.pass_on(instance, at_s):
            return False, True
        left_s = max(0.0, at_s - self._clock.time()) if at_s else NOTICE_S
        for name, running in self.pools.items():
            if running.pool.config.dry_run:
                continue
            try:
                if await running.actuator.replace(instance, left_s):
                    return True, True
            except OSError as error:
                log.warning(
                    "%s: no replacement for %s can be started now: %s", name, instance, error
                )
        drained = await self._drain(instance, "spot_notice") if self._drain is not None else None
        return False, drained is not None

    async def leave(self) -> None:
        """This machine will go: drain every instance that runs on it, decide no more, and give up
        the lead.
        """
        self.leads, self._left = False, True
        for running in self.pools.values():
            await running.actuator.close()
        await self._store.leave()

    async def close(self) -> None:
        """End fits, children and the lead."""
        self._fits.cancel()
        for running in self.pools.values():
            await running.actuator.close()
        try:
            await self._store.leave()
        except LOST as error:
            log.warning("the lead runs out by itself: %s", error)
