"""The journey of a scaling decision: from reported demand to the call of the actuator.

A scaler runs alone with a few pools whose actuators only record what is asked of them. Each has a
steady history; a recording reports an interval of higher demand of one pool and lasts until more
instances are decided on. What `ListDecisions` opens by itself is left out. The scaler's tick is
part of the journey.
"""

from __future__ import annotations

import time
from functools import partial

import grpc
from penstock.api.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from penstock.bench.reading.traces.journey import (
    Journey,
    build_journey,
    entered_in_all,
    without_read,
)
from penstock.bench.reading.traces.stacks import StackInputs, run_programs
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack.plan import StackPlan
from penstock.testkit.eventually import eventually

POOLS = ("first", "second", "third")
"""One recording each."""
INTERVAL_S = 600
HISTORY_INTERVALS = 150
USUAL_DEMAND, HIGHER_DEMAND = 0.5, 2.5
"""In instances."""
CAPACITY = 1000.0
"""Work that an instance does in a second."""
TICK_S = 0.5
LISTINGS = 5
"""Recordings of `ListDecisions` alone."""
POLL_S = 0.05
DECISION_TIMEOUT_S = 60.0
ENVIRONMENT = {
    "PENSTOCK_BATCHER_ADDRESS": "",
    "PENSTOCK_ROUTER_ADDRESS": "",
    "PENSTOCK_TELEMETRY_ADDRESS": "",
    "PENSTOCK_TICK_S": f"{TICK_S}",
}
"""No other service is called, so that demand comes from reports alone; decisions come soon."""


async def follow(inputs: StackInputs) -> Journey:
    """Start a scaler, and record a decision for each pool."""
    pools = [{"name": name, "interval_s": INTERVAL_S, "capacity": CAPACITY} for name in POOLS]
    async with (
        run_programs(
            inputs, ("redis-ledger", "scaler"), {"scaling": {"pools": pools}}, ENVIRONMENT
        ) as (
            plan,
            recorders,
        ),
        grpc.aio.insecure_channel(plan.addresses["scaler"]) as channel,
    ):
        reporter = DemandReporter(scaler_pb2_grpc.ScalerServiceStub(channel), plan)
        await reporter.report_history()
        listings = [(await recorders.record(reporter.list_decisions))[0] for _ in range(LISTINGS)]
        decided = [
            (await recorders.record(partial(reporter.raise_demand, pool)))[0] for pool in POOLS
        ]
    entered = without_read(entered_in_all(decided), entered_in_all(listings))
    return build_journey("Scaling decision", entered, decided[0], inputs.tree)


class DemandReporter:
    """Reports demand, and waits for forecasts and decisions."""

    def __init__(self, scaler: scaler_pb2_grpc.ScalerServiceStub, plan: StackPlan) -> None:
        self._scaler = scaler
        self._metadata = ((TOKEN_KEY, plan.token),)
        self._last_s = time.time() - INTERVAL_S
        """When the interval of higher demand began: it ends now."""

    async def report_history(self) -> None:
        """Report a steady history of every pool; returns when each has a forecast."""
        for pool in POOLS:
            await self._report(pool, [USUAL_DEMAND] * HISTORY_INTERVALS, HISTORY_INTERVALS)
        for pool in POOLS:
            await eventually(partial(self._has_forecast, pool), DECISION_TIMEOUT_S, every_s=POLL_S)

    async def raise_demand(self, pool: str) -> None:
        """Report higher demand, and wait until more instances are wanted."""
        before = await self._wanted(pool)
        await self._report(pool, [HIGHER_DEMAND], 0)

        async def more_wanted() -> bool:
            return await self._wanted(pool) > before

        await eventually(more_wanted, DECISION_TIMEOUT_S, every_s=POLL_S)

    async def list_decisions(self) -> None:
        """The call by which decisions are waited for."""
        await self._wanted(POOLS[0])

    async def _wanted(self, pool: str) -> int:
        request = scaler_pb2.ListDecisionsRequest(pool=pool, limit=1)
        answer = await self._scaler.ListDecisions(request, metadata=self._metadata)
        return answer.decisions[0].wanted if answer.decisions else 0

    async def _has_forecast(self, pool: str) -> bool:
        request = scaler_pb2.GetForecastRequest(pool=pool)
        answer = await self._scaler.GetForecast(request, metadata=self._metadata)
        return bool(answer.points)

    async def _report(self, pool: str, demand: list[float], intervals_before: int) -> None:
        """Report one sample an interval, the first so many intervals before the last one."""
        samples = [
            scaler_pb2.DemandSample(
                start_unix_ms=round(
                    (self._last_s + (number - intervals_before) * INTERVAL_S) * 1e3
                ),
                interval_ms=INTERVAL_S * 1000,
                work=instances * CAPACITY * INTERVAL_S,
            )
            for number, instances in enumerate(demand)
        ]
        request = scaler_pb2.ReportDemandRequest(pool=pool, samples=samples)
        await self._scaler.ReportDemand(request, metadata=self._metadata)
