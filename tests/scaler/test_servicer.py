"""ScalerService over real gRPC: demand, forecast, plan, decisions, notices; each bad field is
named in the error.
"""

from __future__ import annotations

import grpc
import pytest
from penstock.api.scaler.v1 import scaler_pb2 as pb

from .conftest import AUTH, START_S, Scalers, feed


def sample(**changes: float) -> pb.DemandSample:
    values = {
        "start_unix_ms": round(START_S * 1e3),
        "interval_ms": 10_000,
        "work": 100.0,
        **changes,
    }
    # The stub types each field; a mapping of mixed numbers fits none of them.
    return pb.DemandSample(**values)  # type: ignore[arg-type]


async def test_a_sample_reported_twice_is_taken_once(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await scaler.clock.advance(40.0)
    rows = [sample(), sample(start_unix_ms=round(START_S * 1e3) + 30_000, interval_ms=5_000)]
    for taken in (2, 0):
        answer = await scaler.api.ReportDemand(
            pb.ReportDemandRequest(pool="m", samples=rows), metadata=AUTH
        )
        assert answer.taken == taken
    samples = scaler.pool.planner.samples
    assert [one.work for one in samples] == [100.0, 0.0, 0.0, 200.0]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"work": -1.0}, "samples[0].work"),
        ({"work": float("nan")}, "samples[0].work"),
        ({"backlog": float("inf")}, "samples[0].backlog"),
        ({"interval_ms": 0}, "samples[0].interval_ms"),
        ({"start_unix_ms": 0}, "samples[0].start_unix_ms"),
        ({"start_unix_ms": round(START_S * 1e3) + 10**9}, "samples[0].start_unix_ms"),
    ],
)
async def test_a_bad_sample_is_named_and_nothing_is_taken(
    scalers: Scalers, change: dict[str, float], field: str
) -> None:
    scaler = await scalers.make()
    request = pb.ReportDemandRequest(pool="m", samples=[sample(**change)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scaler.api.ReportDemand(request, metadata=AUTH)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")
    assert not scaler.pool.planner.samples


async def test_calls_need_the_internal_token_and_a_known_pool(scalers: Scalers) -> None:
    scaler = await scalers.make()
    for metadata, pool, code in (((), "m", "UNAUTHENTICATED"), (AUTH, "x", "NOT_FOUND")):
        with pytest.raises(grpc.aio.AioRpcError, match=code):
            await scaler.api.GetPlan(pb.GetPlanRequest(pool=pool), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError, match="instance_id"):
        await scaler.api.NotifyTermination(pb.NotifyTerminationRequest(), metadata=AUTH)


async def test_forecast_plan_and_decisions_agree_with_the_demand(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [200.0 + 10 * (step % 3) for step in range(60)])
    forecast = await scaler.api.GetForecast(pb.GetForecastRequest(pool="m"), metadata=AUTH)
    assert len(forecast.points) == 2 and forecast.level == 0.95
    assert 190 < forecast.points[0].median <= forecast.points[0].quantile < 240
    assert sum(forecast.experts.values()) == pytest.approx(1.0, abs=1e-6)
    near = await scaler.api.GetForecast(
        pb.GetForecastRequest(pool="m", horizon_ms=10_000), metadata=AUTH
    )
    assert len(near.points) == 1
    plan = (await scaler.api.GetPlan(pb.GetPlanRequest(pool="m"), metadata=AUTH)).decision
    assert (plan.wanted, plan.level, plan.horizon_ms, plan.pool) == (3, 0.95, 10_000, "m")
    assert plan.reason and plan.reactive_floor == 3
    before = await scaler.api.ListDecisions(pb.ListDecisionsRequest(), metadata=AUTH)
    await scaler.api.GetPlan(pb.GetPlanRequest(pool="m"), metadata=AUTH)
    after = await scaler.api.ListDecisions(
        pb.ListDecisionsRequest(pool="m", limit=5), metadata=AUTH
    )
    assert after.decisions[0] == before.decisions[0] and len(after.decisions) <= 5
