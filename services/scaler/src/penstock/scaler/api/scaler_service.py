"""penstock.api.scaler.v1.ScalerService: demand in; forecasts, plans and decisions out."""

from __future__ import annotations

import math

from penstock.api.scaler.v1 import scaler_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found
from penstock.scaler.forecast.features import Sample
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.planner import Decision
from penstock.scaler.pools.pool import Pool
from penstock.service.clock import Clock

MAX_SAMPLES = 10_000
MAX_DECISIONS = 1000
DEFAULT_DECISIONS = 100
MAX_CLOCK_SKEW_S = 60.0
"""A sample from further in the future is refused: all later ones would count as old."""


class ScalerServicer:
    """Handlers of the service."""

    def __init__(self, autoscaler: Autoscaler, clock: Clock) -> None:
        self._autoscaler = autoscaler
        self._clock = clock

    async def ReportDemand(
        self, request: pb.ReportDemandRequest, call: Call
    ) -> pb.ReportDemandResponse:
        pool = self._pool(request.pool)
        if len(request.samples) > MAX_SAMPLES:
            raise invalid("samples", f"takes at most {MAX_SAMPLES}")
        interval_s = pool.config.interval_s
        samples = [
            self._sample(row, f"samples[{index}]", interval_s)
            for index, row in enumerate(request.samples)
        ]
        return pb.ReportDemandResponse(taken=await self._autoscaler.report(request.pool, samples))

    async def GetForecast(
        self, request: pb.GetForecastRequest, call: Call
    ) -> pb.GetForecastResponse:
        planner = self._pool(request.pool).planner
        if request.horizon_ms < 0:
            raise invalid("horizon_ms", "must not be negative")
        forecasts = planner.forecasts
        answer = pb.GetForecastResponse(level=planner.level, fallen_back=forecasts.fallen_back)
        interval_s = planner.config.interval_s
        last_step = math.inf
        if request.horizon_ms:
            last_step = request.horizon_ms / 1e3 / interval_s
        for step, forecast in enumerate(forecasts.latest, planner.ahead):
            if step <= last_step:
                start_s = planner.samples[-1].start_s + step * interval_s
                answer.points.add(
                    start_unix_ms=round(start_s * 1e3),
                    median=forecast.at(forecasts.levels, 0.5),
                    quantile=forecast.at(forecasts.levels, planner.level),
                )
        if forecasts.latest:
            answer.experts.update(forecasts.latest[0].weights)
        return answer

    async def GetPlan(self, request: pb.GetPlanRequest, call: Call) -> pb.GetPlanResponse:
        pool = self._pool(request.pool)
        return pb.GetPlanResponse(decision=_to_proto(self._autoscaler.plan(pool.name)))

    async def ListDecisions(
        self, request: pb.ListDecisionsRequest, call: Call
    ) -> pb.ListDecisionsResponse:
        names = [request.pool] if request.pool else list(self._autoscaler.pools)
        decisions = [decision for name in names for decision in self._pool(name).decisions]
        decisions.sort(key=lambda decision: decision.made_s, reverse=True)
        limit = min(request.limit or DEFAULT_DECISIONS, MAX_DECISIONS)
        return pb.ListDecisionsResponse(
            decisions=[_to_proto(decision) for decision in decisions[:limit]]
        )

    async def NotifyTermination(
        self, request: pb.NotifyTerminationRequest, call: Call
    ) -> pb.NotifyTerminationResponse:
        if not request.instance_id:
            raise invalid("instance_id", "is empty")
        if request.at_unix_ms < 0:
            raise invalid("at_unix_ms", "must not be negative")
        outcome = await self._autoscaler.handle_notice(
            request.instance_id, request.at_unix_ms / 1e3
        )
        return pb.NotifyTerminationResponse(replaced=outcome.replaced, draining=outcome.draining)

    def _pool(self, name: str) -> Pool:
        pool = self._autoscaler.pools.get(name)
        if pool is None:
            known = ", ".join(self._autoscaler.pools) or "none"
            raise not_found("pool", f"there is no pool {name!r}; known are {known}")
        return pool

    def _sample(self, row: pb.DemandSample, field: str, interval_s: float) -> Sample:
        """A sample as the pool counts it: work of one interval of the pool's length."""
        for name, value in (("work", row.work), ("backlog", row.backlog)):
            if not math.isfinite(value) or value < 0:
                raise invalid(f"{field}.{name}", "must be finite and not negative")
        if row.interval_ms <= 0:
            raise invalid(f"{field}.interval_ms", "must be positive")
        start_s = row.start_unix_ms / 1e3
        if not 0 < start_s < self._clock.time() + MAX_CLOCK_SKEW_S:
            raise invalid(f"{field}.start_unix_ms", "must be a time of the past")
        work = row.work * interval_s * 1e3 / row.interval_ms
        return Sample(start_s, work, row.backlog)


def _to_proto(decision: Decision) -> pb.Decision:
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
