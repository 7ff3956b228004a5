"""How many instances should there be: demand in, plans and reasons out; KEDA's external scaler."""

from __future__ import annotations

import time
from typing import Any

import pytest
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.api.scaler.v1 import scaler_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
STEADY, BUSY, SILENT = "steady/pool", "busy", "silent"


def demand(pool: str, work: float, count: int = 20, backlog: float = 0.0) -> Any:
    """The last seconds, one sample each."""
    now_ms = int(time.time()) * 1000
    samples = [
        pb.DemandSample(
            start_unix_ms=now_ms - (count - number) * 1000,
            interval_ms=1000,
            work=work,
            backlog=backlog,
        )
        for number in range(count)
    ]
    return pb.ReportDemandRequest(pool=pool, samples=samples)


async def plan(api: Api, pool: str) -> pb.Decision:
    request = pb.GetPlanRequest(pool=pool)
    return (await api.scaler.GetPlan(request, metadata=api.token)).decision


def ref(pool: str) -> keda.ScaledObjectRef:
    return keda.ScaledObjectRef(name="x", namespace="y", scalerMetadata={"pool": pool})


async def metric(api: Api, pool: str, name: str = "") -> int:
    request = keda.GetMetricsRequest(scaledObjectRef=ref(pool), metricName=name)
    (value,) = (await api.keda.GetMetrics(request)).metricValues
    assert value.metricValueFloat == value.metricValue
    return value.metricValue


async def test_a_pool_without_demand_stays_at_its_least(api: Api) -> None:
    decision = await plan(api, STEADY)
    assert (decision.pool, decision.wanted, decision.current) == (STEADY, 2, 2)
    assert decision.reason
    assert await metric(api, STEADY) == 2


async def test_a_pool_with_little_demand_is_kept_at_its_minimum(api: Api) -> None:
    await api.scaler.ReportDemand(demand(STEADY, 10.0), metadata=api.token)

    async def decided() -> None:
        decision = await plan(api, STEADY)
        assert (decision.wanted, decision.reason) == (2, "min_instances")

    await eventually(decided)


async def test_demand_is_provided_for_and_the_reason_is_kept(api: Api) -> None:
    """An instance does 100 a second; 550 a second need six, of which four come at once."""
    answer = await api.scaler.ReportDemand(demand(BUSY, 550.0), metadata=api.token)
    assert answer.taken == 20
    again = await api.scaler.ReportDemand(demand(BUSY, 550.0, count=5), metadata=api.token)
    assert again.taken <= 1  # what is known is refused, but a second may have begun meanwhile

    async def decided() -> pb.Decision:
        request = pb.ListDecisionsRequest(pool=BUSY)
        rows = (await api.scaler.ListDecisions(request, metadata=api.token)).decisions
        assert (rows[0].current, rows[0].wanted) == (1, 5)
        return rows[0]

    decision = await eventually(decided)
    assert decision.pool == BUSY
    assert (decision.reactive_floor, decision.forecast, decision.level) == (6, 550.0, 0.95)
    assert decision.reason.startswith("panic")
    assert await metric(api, BUSY, "penstock-busy") == decision.wanted
    active = await api.keda.IsActive(ref(BUSY))
    assert active.result
    forecast = await api.scaler.GetForecast(pb.GetForecastRequest(pool=BUSY), metadata=api.token)
    assert 0.5 <= forecast.level <= 0.99


async def test_a_scaler_that_knows_nothing_is_not_the_reason_for_zero(api: Api) -> None:
    assert await metric(api, SILENT) >= 1
    assert (await api.keda.IsActive(ref(SILENT))).result


async def test_keda_is_not_told_zero_once_demand_is_no_longer_fresh(api: Api) -> None:
    """A scaler that decides every three seconds is asked between two decisions."""

    async def last_decided() -> int:
        request = pb.ListDecisionsRequest(pool=SILENT, limit=1)
        rows = (await api.slow_scaler.ListDecisions(request, metadata=api.token)).decisions
        return rows[0].wanted

    async def decided_zero() -> None:
        await api.slow_scaler.ReportDemand(demand(SILENT, 0.0), metadata=api.token)
        assert await last_decided() == 0

    async def one_although_zero_was_decided() -> None:
        request = keda.GetMetricsRequest(scaledObjectRef=ref(SILENT))
        (told,) = (await api.slow_keda.GetMetrics(request)).metricValues
        assert (told.metricValue, await last_decided()) == (1, 0)

    await eventually(decided_zero, 30.0)
    await eventually(one_although_zero_was_decided, 2.5)


async def test_keda_is_told_the_metric_by_a_name_that_kubernetes_takes(api: Api) -> None:
    (spec,) = (await api.keda.GetMetricSpec(ref(STEADY))).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (
        "penstock-steady-pool",
        1,
        1.0,
    )
    assert await metric(api, STEADY, spec.metricName) == 2


async def test_keda_is_pushed_the_state_at_once(api: Api) -> None:
    call = api.keda.StreamIsActive(ref(STEADY), timeout=10)
    assert (await call.read()).result
    call.cancel()


@pytest.mark.parametrize("method", ["IsActive", "GetMetricSpec", "GetMetrics"])
async def test_keda_is_told_of_a_pool_that_is_not_there(api: Api, method: str) -> None:
    request: Any = ref("nowhere")
    if method == "GetMetrics":
        request = keda.GetMetricsRequest(scaledObjectRef=request)
    told = await refused(getattr(api.keda, method)(request))
    assert told.code == "NOT_FOUND"
    assert "'nowhere'" in told.message
    assert STEADY in told.message


async def test_keda_is_told_of_a_metric_that_is_another_pools(api: Api) -> None:
    request = keda.GetMetricsRequest(scaledObjectRef=ref(STEADY), metricName="penstock-busy")
    assert (await refused(api.keda.GetMetrics(request))).code == "NOT_FOUND"


async def test_a_notice_of_an_instance_that_nobody_knows_changes_nothing(api: Api) -> None:
    request = pb.NotifyTerminationRequest(instance_id="i-unknown", source="test")
    answer = await api.scaler.NotifyTermination(request, metadata=api.token)
    assert (answer.replaced, answer.draining) == (False, False)


def sample(**fields: Any) -> pb.ReportDemandRequest:
    """One sample of the pool `steady/pool`, right but for `fields`."""
    past = {"start_unix_ms": int(time.time() * 1000) - 5_000, "interval_ms": 1000, "work": 1.0}
    return pb.ReportDemandRequest(pool=STEADY, samples=[pb.DemandSample(**{**past, **fields})])


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("GetPlan", pb.GetPlanRequest(pool="nowhere"), "NOT_FOUND", "pool"),
        ("GetForecast", pb.GetForecastRequest(pool="nowhere"), "NOT_FOUND", "pool"),
        ("ListDecisions", pb.ListDecisionsRequest(pool="nowhere"), "NOT_FOUND", "pool"),
        ("ReportDemand", pb.ReportDemandRequest(pool="nowhere"), "NOT_FOUND", "pool"),
        (
            "GetForecast",
            pb.GetForecastRequest(pool=BUSY, horizon_ms=-1),
            "INVALID_ARGUMENT",
            "horizon_ms",
        ),
        ("ReportDemand", sample(work=-1.0), "INVALID_ARGUMENT", "samples[0].work"),
        ("ReportDemand", sample(backlog=float("inf")), "INVALID_ARGUMENT", "samples[0].backlog"),
        ("ReportDemand", sample(interval_ms=0), "INVALID_ARGUMENT", "samples[0].interval_ms"),
        (
            "ReportDemand",
            sample(start_unix_ms=1 << 50),
            "INVALID_ARGUMENT",
            "samples[0].start_unix_ms",
        ),
        ("NotifyTermination", pb.NotifyTerminationRequest(), "INVALID_ARGUMENT", "instance_id"),
        (
            "NotifyTermination",
            pb.NotifyTerminationRequest(instance_id="i", at_unix_ms=-1),
            "INVALID_ARGUMENT",
            "at_unix_ms",
        ),
    ],
)
async def test_a_bad_field_is_named(
    api: Api, method: str, request_: Any, code: str, field: str
) -> None:
    told = await refused(getattr(api.scaler, method)(request_, metadata=api.token))
    assert (told.code, told.field) == (code, field)
