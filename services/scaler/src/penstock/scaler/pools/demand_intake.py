"""Brings demand from other services into the pools, where clients do not report it themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from penstock.rpc.errors import Fault
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.demand_source import DemandReading, DemandSource, FleetCount
from penstock.scaler.pools.pool import Pool
from penstock.service.clock import Clock

log = logging.getLogger(__name__)

COMPUTE_MS_PER_S = 1000.0
NO_COUNT = FleetCount(0, 0)
STARTING_S = 15.0
"""How long after its own start a scaler takes it for granted that others are still starting."""


class DemandIntake:
    """Reads demand for all pools at each tick of the leader."""

    def __init__(self, source: DemandSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._made_s = clock.monotonic()

    def _say(self, what: str, fault: Fault) -> None:
        """Log that somebody cannot be asked; while all services start, that is no news."""
        starting = self._clock.monotonic() - self._made_s < STARTING_S
        log.log(logging.DEBUG if starting else logging.WARNING, "%s: %s", what, fault)

    def reset(self) -> None:
        """Begin anew with the next reading: this scaler does not lead now."""
        self._source.remember(None)

    async def read(self, pools: Mapping[str, Pool]) -> dict[str, list[Sample]]:
        """Return samples of intervals that have ended, by pool.

        Sets each pool's nominal capacity, where its settings do not. A service that cannot be
        asked is logged; its demand then counts in the next reading.
        """
        try:
            reading = await self._source.read()
        except Fault as fault:
            self._say("demand cannot be read", fault)
            return {}
        if reading is None:
            return {}
        samples = {name: self._read_pool(name, pool, reading) for name, pool in pools.items()}
        self._source.remember(reading)
        return samples

    def _read_pool(self, name: str, pool: Pool, reading: DemandReading) -> list[Sample]:
        if name in reading.costs and not pool.config.capacity:
            # An instance computes a millisecond in a millisecond, on each of its batches.
            concurrency = reading.concurrency.get(name, 1.0)
            pool.planner.nominal_capacity = COMPUTE_MS_PER_S * concurrency
        now_s = self._clock.time()
        is_reported = now_s - pool.reported_s <= pool.config.stale_after_s
        if is_reported or not reading.knows(name):
            # Where no service knows the model, silence does not mean an idle pool.
            pool.meter.reset()
            return []
        arrived, backlog = self._source.since_last(reading, name)
        return pool.meter.read(arrived, backlog, now_s)

    async def count_instances(self, pools: Mapping[str, Pool]) -> None:
        """Set for each pool how many instances serve and how many calls wait for the first."""
        fleets: dict[str, FleetCount] = {}
        try:
            fleets = await self._source.fleets(list(pools))
        except Fault as fault:
            self._say("the router cannot be asked for instances and held calls", fault)
        for name, pool in pools.items():
            pool.serving = fleets[name].serving if name in fleets else None
            pool.held_calls = fleets.get(name, NO_COUNT).held_calls
