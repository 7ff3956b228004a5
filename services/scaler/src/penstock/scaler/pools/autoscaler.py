"""The loop of the scaler: read demand, decide for each pool, act.

Of several scalers one leads and acts; the others follow its decisions, so that each of them can
answer. Callers are answered from memory and never wait for the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.demand_intake import DemandIntake
from penstock.scaler.pools.fitting import BackgroundFits
from penstock.scaler.pools.planner import Decision
from penstock.scaler.pools.pool import Pool
from penstock.scaler.pools.store import MAX_DECISIONS, STORE_ERRORS, ScalerStore
from penstock.service.clock import Clock, next_tick

log = logging.getLogger(__name__)

NOTICE_S = 120.0
"""Time that a notice gives where it does not say."""
SHARED_SAMPLES = 60
"""Newest samples in the store that are looked through at each tick for reports to other scalers."""
LEASE_MS = 15_000
StopRequests = Callable[[str, str], Awaitable[int | None]]
"""Stops new requests to an instance, given its id and a reason; see `Drainer.stop_requests`."""


@dataclass(frozen=True)
class NoticeOutcome:
    """What was done about a termination notice.

    Args:
        replaced: a replacement was started.
        draining: the instance gets no new work from now on, or once its replacement serves.
    """

    replaced: bool
    draining: bool


class Autoscaler:
    """Decides for every pool every few seconds.

    Owner: the service, which awaits `load`, runs `run` in a task, and awaits `close`.

    Args:
        demand: None where demand is only reported.
        stop_requests: None where there is no router.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        store: ScalerStore,
        clock: Clock,
        demand: DemandIntake | None = None,
        stop_requests: StopRequests | None = None,
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.leads = True
        self._store = store
        self._clock = clock
        self._demand = demand
        self._stop_requests = stop_requests
        self._fits = BackgroundFits()
        self._has_left = False

    async def load(self) -> None:
        """Take up history and last decisions from the store."""
        for name, pool in self.pools.items():
            record = await self._store.load(name, pool.planner.max_samples, MAX_DECISIONS)
            pool.restore(record, self._clock.time())
            self._start_fit(pool)

    async def run(self, tick_s: float, lease_ms: int) -> None:
        """Tick for ever. A failed tick is logged, and the last decisions stand."""
        while True:
            try:
                await self.tick(lease_ms)
            except Exception:
                log.exception("a tick failed; the last decisions stand")
            await next_tick(self._clock, tick_s)

    async def tick(self, lease_ms: int = LEASE_MS) -> None:
        """Read demand, decide for each pool, and act where this scaler leads.

        A pool that fails does not hold up the others.
        """
        await self._elect(lease_ms)
        if self.leads:
            await self._read_demand()
            for instance, at_s in await self._store.take_notices():
                await self.handle_notice(instance, at_s)
        elif self._demand is not None:
            self._demand.reset()
        for name, pool in self.pools.items():
            try:
                await self._update(pool)
            except Exception:
                log.exception("%s: no decision; the last one stands", name)

    async def _elect(self, lease_ms: int) -> None:
        try:
            self.leads = not self._has_left and await self._store.lead(lease_ms)
        except STORE_ERRORS as error:
            role = "leads" if self.leads else "follows"
            log.warning("the store is lost; this scaler %s as before: %s", role, error)

    async def _read_demand(self) -> None:
        if self._demand is None:
            return
        for name, samples in (await self._demand.read(self.pools)).items():
            await self._take_and_store(self.pools[name], samples)
        await self._demand.count_instances(self.pools)

    async def _update(self, pool: Pool) -> None:
        """Take samples that others were given; then decide, or follow the leader's decision."""
        if self.leads:
            self._take(pool, await self._store.samples(pool.name, SHARED_SAMPLES))
            await self._decide(pool)
        else:
            record = await self._store.load(pool.name, SHARED_SAMPLES, max_decisions=1)
            self._take(pool, record.samples)
            pool.meter.reset()
            pool.follow(record)

    async def report(self, name: str, samples: Sequence[Sample]) -> int:
        """Take samples of a pool. Returns how many were new.

        Raises:
            KeyError: there is no such pool.
            ValueError: a sample is negative or not finite.
        """
        pool = self.pools[name]
        pool.reported_s = self._clock.time()
        return await self._take_and_store(pool, samples)

    async def _take_and_store(self, pool: Pool, samples: Sequence[Sample]) -> int:
        new = self._take(pool, samples)
        await self._store.save_samples(pool.name, new, pool.planner.max_samples)
        return len(new)

    def _take(self, pool: Pool, samples: Sequence[Sample]) -> list[Sample]:
        new = pool.take(samples, self._clock.time())
        self._start_fit(pool)
        return new

    def _start_fit(self, pool: Pool) -> None:
        if pool.planner.fit_due:
            self._fits.start(pool.planner)

    async def _decide(self, pool: Pool) -> None:
        fleet = await self._observe(pool)
        if fleet is None:
            return
        now_s = self._clock.time()
        last = pool.decisions[0] if pool.decisions else None
        live = pool.live_state(fleet, last.wanted if last else 0)
        decision = _with_on_demand(pool, pool.planner.decide(live, now_s))
        if last is None or (last.wanted, last.reason) != (decision.wanted, decision.reason):
            pool.put_in_force(decision)
            await self._store.save_decision(decision)
        if decision.wanted != fleet.wanted and not pool.config.dry_run:
            await self._act(pool, fleet, decision)

    async def _observe(self, pool: Pool) -> FleetStatus | None:
        """The pool's instances, as they are measured; None where nobody can be asked."""
        try:
            fleet = await pool.actuator.status()
        except OSError as error:
            log.warning(
                "%s: instances cannot be counted; the last decision stands: %s", pool.name, error
            )
            return None
        if not fleet.is_observed and pool.serving is not None:
            fleet = FleetStatus(fleet.wanted, pool.serving)
        pool.fleet = fleet
        if fleet.is_observed:
            pool.record_ready(fleet.ready, self._clock.time())
            await self._store_calibration(pool)
        return fleet

    async def _store_calibration(self, pool: Pool) -> None:
        calibration = pool.planner.calibration
        if calibration != pool.stored_calibration:
            pool.stored_calibration = calibration
            await self._store.save_calibration(pool.name, calibration)

    async def _act(self, pool: Pool, fleet: FleetStatus, decision: Decision) -> None:
        if fleet.is_observed:
            pool.record_starts(fleet.wanted, decision.wanted, decision.made_s)
        try:
            await pool.actuator.scale(decision.wanted)
        except OSError as error:
            log.warning(
                "%s: cannot be scaled from %d to %d now; the next tick tries again: %s",
                pool.name,
                fleet.wanted,
                decision.wanted,
                error,
            )

    async def wait_for_fits(self) -> None:
        """Wait until no fit of experts runs."""
        await self._fits.wait()

    def plan(self, name: str) -> Decision:
        """Return what would be decided now, from memory; changes nothing.

        Raises:
            KeyError: there is no such pool.
        """
        pool = self.pools[name]
        fleet = pool.fleet or FleetStatus(pool.wanted, pool.wanted, is_observed=False)
        live = pool.live_state(fleet, pool.wanted)
        return _with_on_demand(pool, pool.planner.evaluate(live, self._clock.time()).decision)

    async def handle_notice(self, instance: str, at_s: float = 0.0) -> NoticeOutcome:
        """Replace an instance that will be terminated, then drain it.

        An instance that no pool here runs is drained at the router at once: whoever runs it
        replaces it. A scaler that does not lead forwards the notice to the leader, which acts at
        its next tick.

        Args:
            at_s: when it will be gone, in Unix seconds; 0 means in two minutes.
        """
        if not self.leads and await self._store.forward_notice(instance, at_s):
            return NoticeOutcome(replaced=False, draining=True)
        remaining_s = max(0.0, at_s - self._clock.time()) if at_s else NOTICE_S
        if await self._replace(instance, remaining_s):
            return NoticeOutcome(replaced=True, draining=True)
        in_flight = None
        if self._stop_requests is not None:
            in_flight = await self._stop_requests(instance, "spot_notice")
        return NoticeOutcome(replaced=False, draining=in_flight is not None)

    async def _replace(self, instance: str, remaining_s: float) -> bool:
        for name, pool in self.pools.items():
            if pool.config.dry_run:
                continue
            try:
                if await pool.actuator.replace(instance, remaining_s):
                    return True
            except OSError as error:
                log.warning(
                    "%s: no replacement of %s can be started now: %s", name, instance, error
                )
        return False

    async def leave(self) -> None:
        """Drain every instance on this machine, which will be taken away, and never lead again."""
        self.leads = False
        self._has_left = True
        for pool in self.pools.values():
            await pool.actuator.close()
        await self._store.release_lead()

    async def close(self) -> None:
        """Stop fits and actuators, and release the lead."""
        self._fits.cancel()
        for pool in self.pools.values():
            await pool.actuator.close()
        await self._store.release_lead()


def _with_on_demand(pool: Pool, decision: Decision) -> Decision:
    return replace(decision, on_demand=pool.actuator.on_demand_count(decision.wanted))
