"""The door: demand in, forecasts, plans and decisions out.

Each RPC is proto in, one question to the engine, proto out.
"""

from __future__ import annotations

import math
from dataclasses import replace

from penstock.api.scaler.v1 import scaler_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.planner import Decision
from penstock.scaler.pools.pool import Pool
from penstock.scaler.samples import Sample
from penstock.service.clock import Clock

MOST_SAMPLES = 10_000
MOST_DECISIONS = 1000
FUTURE_S = 60.0
"""Clocks may differ by so much; a sample from further ahead is refused, for it would stop all later
ones.
"""


class ScalerServicer:
    """penstock.api.scaler.v1.ScalerService."""

    def __init__(self, engine: Autoscaler, clock: Clock) -> None:
        self._engine, self._clock = engine, clock

    async def ReportDemand(
        self, request: pb.ReportDemandRequest, call: Call
    ) -> pb.ReportDemandResponse:
        running = self._running(request.pool)
        if len(request.samples) > MOST_SAMPLES:
            raise invalid("samples", f"takes at most {MOST_SAMPLES}")
        interval_s = running.pool.config.interval_s
        samples = [
            self._sample(row, place, interval_s) for place, row in enumerate(request.samples)
        ]
        return pb.ReportDemandResponse(taken=await self._engine.report(request.pool, samples))

    async def GetForecast(
        self, request: pb.GetForecastRequest, call: Call
    ) -> pb.GetForecastResponse:
        pool = self._running(request.pool).pool
        if request.horizon_ms < 0:
            raise invalid("horizon_ms", "must not be negative")
        answer = pb.GetForecastResponse(
            level=pool.config.wanted_level, fallen_back=pool.fallen_back
        )
        interval_s = pool.config.interval_s
        reach = request.horizon_ms / 1e3 / interval_s if request.horizon_ms else math.inf
        for place, forecast in enumerate(pool.latest):
            ahead = pool.ahead + place
            if ahead <= reach:
                start = pool.samples[-1].start_s + ahead * interval_s
                median, quantile = (
                    forecast.at(pool.levels, level) for level in (0.5, answer.level)
                )
                answer.points.add(
                    start_unix_ms=round(start * 1e3), median=median, quantile=quantile
                )
        if pool.latest:
            answer.experts.update(pool.latest[0].weights)
        return answer

    async def GetPlan(self, request: pb.GetPlanRequest, call: Call) -> pb.GetPlanResponse:
        self._running(request.pool)
        return pb.GetPlanResponse(decision=_message(self._engine.plan(request.pool)))

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, call: Call
    ) -> pb.ListDecisionsResponse:
        names = [request.pool] if request.pool else list(self._engine.pools)
        found = [decision for name in names for decision in self._running(name).decisions]
        found.sort(key=lambda decision: decision.made_s, reverse=True)
        limit = min(request.limit or 100, MOST_DECISIONS)
        return pb.ListDecisionsResponse(
            decisions=[_message(decision) for decision in found[:limit]]
        )

    async def NotifyTermination(
        self, request: pb.NotifyTerminationRequest, call: Call
    ) -> pb.NotifyTerminationResponse:
        if not request.instance_id:
            raise invalid("instance_id", "is empty")
        if request.at_unix_ms < 0:
            raise invalid("at_unix_ms", "must not be negative")
        replaced, drained = await self._engine.replace(
            request.instance_id, request.at_unix_ms / 1e3
        )
        return pb.NotifyTerminationResponse(replaced=replaced, draining=drained)

    def _running(self, name: str) -> Pool:
        running = self._engine.pools.get(name)
        if running is None:
            raise not_found(
                "pool",
                f"there is no pool {name!r}; known are {', '.join(self._engine.pools) or 'none'}",
            )
        return running

    def _sample(self, row: pb.DemandSample, place: int, interval_s: float) -> Sample:
        for name in ("work", "backlog"):
            value = getattr(row, name)
            if not math.isfinite(value) or value < 0:
                raise invalid(f"samples[{place}].{name}", "must be finite and not negative")
        if row.interval_ms <= 0:
            raise invalid(f"samples[{place}].interval_ms", "must be positive")
        if not 0 < row.start_unix_ms / 1e3 < self._clock.time() + FUTURE_S:
            raise invalid(f"samples[{place}].start_unix_ms", "must be a time of the past")
        sample = Sample(row.start_unix_ms / 1e3, row.work, row.backlog)
        # Work is kept for one interval of the pool, whatever length the reporter's has.
        return replace(sample, work=row.work * interval_s * 1e3 / row.interval_ms)


def _message(decision: Decision) -> pb.Decision:
    return pb.Decision(
        made_unix_ms=round(decision.made_s * 1e3),
        pool=decision.pool,
        current=decision.current,
        wanted=decision.wanted,
        on_demand=decision.on_demand,
        forecast=decision.forecast,
        level=decision.level,
        horizon_ms=round(decision.horizon_s * 1e3),
        reactive_floor=decision.floor,
        reason=decision.reason,
    )
