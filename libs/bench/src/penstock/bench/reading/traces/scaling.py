"""The journey of a scaling decision: from demand reported to the actuator told.

A scaler runs alone with a few pools whose actuators only note what is asked of them. Each has a
steady history; a recording reports an interval of higher demand of one pool and lasts until more
instances are decided on. What asking for decisions opens by itself is taken away. The tick is no
background here.
"""

from __future__ import annotations

import time
from functools import partial

import grpc
from penstock.api.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from penstock.bench.reading.traces.journey import Journey, beyond, entered_always, journey
from penstock.bench.reading.traces.stacks import Ground, alone
from penstock.bench.reading.traces.waiting import until
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack.plan import StackPlan

POOLS = ("first", "second", "third")
"""One recording each."""
INTERVAL_S = 600
HISTORY = 150
USUAL, HIGHER = 0.5, 2.5
"""Demand in instances."""
CAPACITY = 1000.0
"""Work that an instance does in a second."""
TICK_S = 0.5
CARRIERS = 5
ALONE = {
    "PENSTOCK_BATCHER_ADDRESS": "",
    "PENSTOCK_ROUTER_ADDRESS": "",
    "PENSTOCK_TELEMETRY_ADDRESS": "",
    "PENSTOCK_TICK_S": f"{TICK_S}",
}
"""Demand comes from reports alone, and decisions soon."""


async def follow(ground: Ground) -> Journey:
    """Start a scaler, and record a decision for each pool."""
    pools = [{"name": name, "interval_s": INTERVAL_S, "capacity": CAPACITY} for name in POOLS]
    async with (
        alone(ground, ("redis-ledger", "scaler"), {"scaling": {"pools": pools}}, ALONE) as (
            plan,
            recorders,
        ),
        grpc.aio.insecure_channel(plan.addresses["scaler"]) as channel,
    ):
        reporter = Reporter(scaler_pb2_grpc.ScalerServiceStub(channel), plan)
        await reporter.begin()
        carrying = [(await recorders.record(reporter.ask))[0] for _ in range(CARRIERS)]
        decided = [
            (await recorders.record(partial(reporter.raise_demand, pool)))[0] for pool in POOLS
        ]
    entered = beyond(entered_always(decided), entered_always(carrying))
    return journey("Scaling decision", entered, decided[0], ground.tree)


class Reporter:
    """Reports demand and waits for what is decided."""

    def __init__(self, scaler: scaler_pb2_grpc.ScalerServiceStub, plan: StackPlan) -> None:
        self._scaler, self._metadata = scaler, ((TOKEN_KEY, plan.token),)
        self._last_s = time.time() - INTERVAL_S
        """When the interval of higher demand began: it ends now."""

    async def begin(self) -> None:
        """A steady history of every pool; returns when each has a forecast."""
        for pool in POOLS:
            await self._report(pool, [USUAL] * HISTORY, HISTORY)
        for pool in POOLS:
            await until(partial(self._has_forecast, pool))

    async def raise_demand(self, pool: str) -> None:
        """Report higher demand, and wait until more instances are wanted."""
        before = await self._wanted(pool)
        await self._report(pool, [HIGHER], 0)

        async def more() -> bool:
            return await self._wanted(pool) > before

        await until(more)

    async def ask(self) -> None:
        """Ask for decisions."""
        await self._wanted(POOLS[0])

    async def _wanted(self, pool: str) -> int:
        request = scaler_pb2.ListDecisionsRequest(pool=pool, limit=1)
        answer = await self._scaler.ListDecisions(request, metadata=self._metadata)
        return answer.decisions[0].wanted if answer.decisions else 0

    async def _has_forecast(self, pool: str) -> bool:
        request = scaler_pb2.GetForecastRequest(pool=pool)
        answer = await self._scaler.GetForecast(request, metadata=self._metadata)
        return bool(answer.points)

    async def _report(self, pool: str, demand: list[float], before: int) -> None:
        """One sample an interval, the first so many intervals before the last one."""
        samples = [
            scaler_pb2.DemandSample(
                start_unix_ms=round((self._last_s + (number - before) * INTERVAL_S) * 1e3),
                interval_ms=INTERVAL_S * 1000,
                work=instances * CAPACITY * INTERVAL_S,
            )
            for number, instances in enumerate(demand)
        ]
        request = scaler_pb2.ReportDemandRequest(pool=pool, samples=samples)
        await self._scaler.ReportDemand(request, metadata=self._metadata)
