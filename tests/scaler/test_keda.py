"""KEDA's external scaler, asked as KEDA asks: GetMetrics and then IsActive at each poll, bare
metric names, push streams; and the failures in which it must never answer zero.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.scaler.actuate.actuator import DryRun, FleetStatus
from penstock.scaler.pools.planner import PoolPlanner

from .conftest import Scaler, Scalers, feed

REF = keda.ScaledObjectRef(
    name="so", namespace="default", scalerMetadata={"pool": "m", "scalerAddress": "x:1"}
)


async def poll(scaler: Scaler) -> tuple[int, bool]:
    """One poll as KEDA makes it: the spec, metrics without the `s0-` prefix, then activity."""
    spec = (await scaler.keda.GetMetricSpec(REF)).metricSpecs[0]
    assert spec.targetSize == 1 and spec.targetSizeFloat == 1.0
    prefixed = f"s0-{spec.metricName}"
    request = keda.GetMetricsRequest(scaledObjectRef=REF, metricName=prefixed.removeprefix("s0-"))
    value = (await scaler.keda.GetMetrics(request)).metricValues[0]
    assert value.metricName == spec.metricName and value.metricValue == value.metricValueFloat
    return value.metricValue, (await scaler.keda.IsActive(REF)).result


async def test_a_poll_gets_the_decision(scalers: Scalers) -> None:
    scaler = await scalers.make()
    assert await poll(scaler) == (1, True)
    await feed(scaler, [300.0] * 6)
    assert await poll(scaler) == (3, True)


async def test_zero_needs_fresh_samples_without_work_and_ends_with_the_first_backlog(
    scalers: Scalers,
) -> None:
    scaler = await scalers.make()
    await feed(scaler, [0.0] * 10)
    assert await poll(scaler) == (0, False)
    await feed(scaler, [0.0], backlog=4.0)
    assert await poll(scaler) == (1, True)


async def test_without_fresh_demand_the_answer_is_never_zero(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [0.0] * 10)
    assert await poll(scaler) == (0, False)
    await scaler.clock.advance(31.0)
    assert await poll(scaler) == (1, True)


async def test_while_every_decision_fails_the_last_one_stands(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = await scalers.make()
    await feed(scaler, [500.0] * 6)
    assert await poll(scaler) == (5, True)

    def fail(self: PoolPlanner, *_: object) -> None:
        raise RuntimeError("the forecaster has died")

    monkeypatch.setattr(PoolPlanner, "decide", fail)
    loop = asyncio.create_task(scaler.autoscaler.run(5.0, 15_000))
    for _ in range(50):
        await scaler.clock.advance(60.0)
        assert await poll(scaler) == (5, True)
    assert not loop.done()
    loop.cancel()


async def test_a_push_comes_when_the_state_changes(scalers: Scalers) -> None:
    scaler = await scalers.make()
    stream = scaler.keda.StreamIsActive(REF)
    assert (await stream.read()).result
    await feed(scaler, [0.0] * 10)
    while (await stream.read()).result:
        pass
    await feed(scaler, [50.0] * 2)
    assert (await stream.read()).result
    stream.cancel()


@pytest.mark.parametrize("metadata", [{}, {"pool": "nobody"}])
async def test_an_unknown_pool_is_named(scalers: Scalers, metadata: dict[str, str]) -> None:
    scaler = await scalers.make()
    ref = keda.ScaledObjectRef(name="so", scalerMetadata=metadata)
    for method in (scaler.keda.IsActive, scaler.keda.GetMetricSpec):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(ref)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "known are m" in (caught.value.details() or "")


async def test_an_unknown_metric_is_refused(scalers: Scalers) -> None:
    scaler = await scalers.make()
    request = keda.GetMetricsRequest(scaledObjectRef=REF, metricName="s0-penstock-m")
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await scaler.keda.GetMetrics(request)


async def test_a_restarted_scaler_answers_what_was_decided(scalers: Scalers) -> None:
    first = await scalers.make()
    await feed(first, [400.0] * 6)
    restarted = await scalers.make("b")
    assert await poll(restarted) == (4, True)
    assert len(restarted.pool.planner.samples) == 6


async def test_of_two_scalers_one_leads_and_both_answer_the_same(scalers: Scalers) -> None:
    first, second = await scalers.make("a"), await scalers.make("b")
    await feed(first, [700.0] * 6)
    await second.autoscaler.tick()
    assert (first.autoscaler.leads, second.autoscaler.leads) == (True, False)
    assert await poll(first) == await poll(second) == (7, True)
    await first.autoscaler.close()
    await second.autoscaler.tick()
    assert second.autoscaler.leads


async def test_while_a_fleet_cannot_be_observed_or_scaled_the_last_answer_stands(
    scalers: Scalers,
) -> None:
    class Unreachable(DryRun):
        answers = True

        async def status(self) -> FleetStatus:
            if not self.answers:
                raise OSError("nobody answers")
            return await super().status()

        async def scale(self, wanted: int) -> None:
            raise OSError("refused")

    actuator = Unreachable(1)
    scaler = await scalers.make(actuator=actuator)
    await feed(scaler, [300.0] * 6)
    assert await poll(scaler) == (3, True)
    actuator.answers = False
    await feed(scaler, [900.0] * 2)
    assert await poll(scaler) == (3, True)
