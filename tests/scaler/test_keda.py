"""A client shaped like KEDA's: GetMetrics and then IsActive at each poll, bare metric names, push
streams; and what it must survive.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.scaler.actuate.actuator import DryRun, FleetStatus
from penstock.scaler.pools.planner import PoolPlanner
from penstock.scaler.samples import Sample

from .conftest import Scaler, Scalers

REF = keda.ScaledObjectRef(
    name="so", namespace="default", scalerMetadata={"pool": "m", "scalerAddress": "x:1"}
)


async def poll(scaler: Scaler) -> tuple[int, bool]:
    """One poll as KEDA makes it: spec, metrics without the `s0-` prefix, then activity."""
    spec = (await scaler.keda.GetMetricSpec(REF)).metricSpecs[0]
    assert spec.targetSize == 1 and spec.targetSizeFloat == 1.0
    prefixed = f"s0-{spec.metricName}"
    request = keda.GetMetricsRequest(scaledObjectRef=REF, metricName=prefixed.removeprefix("s0-"))
    value = (await scaler.keda.GetMetrics(request)).metricValues[0]
    assert value.metricName == spec.metricName and value.metricValue == value.metricValueFloat
    return value.metricValue, (await scaler.keda.IsActive(REF)).result


async def feed(scaler: Scaler, work: list[float], backlog: float = 0.0) -> None:
    """One sample an interval, each followed by a decision."""
    for amount in work:
        start = scaler.clock.time()
        await scaler.clock.advance(10.0)
        await scaler.engine.report("m", [Sample(start, amount, backlog)])
        await scaler.engine.settled()
        await scaler.engine.tick()


async def test_a_poll_gets_the_decision(scalers: Scalers) -> None:
    scaler = await scalers.make()
    assert await poll(scaler) == (1, True)
    await feed(scaler, [300.0] * 6)
    assert await poll(scaler) == (3, True)


async def test_zero_needs_fresh_quiet_and_ends_with_the_first_work(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [0.0] * 10)
    assert await poll(scaler) == (0, False)
    await feed(scaler, [0.0], backlog=4.0)
    assert await poll(scaler) == (1, True)


async def test_a_scaler_without_fresh_demand_is_never_the_reason_for_zero(scalers: Scalers) -> None:
    scaler = await scalers.make()
    await feed(scaler, [0.0] * 10)
    assert await poll(scaler) == (0, False)
    await scaler.clock.advance(31.0)
    assert await poll(scaler) == (1, True)


async def test_with_the_forecaster_dead_the_last_answer_stands(
    scalers: Scalers, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = await scalers.make()
    await feed(scaler, [500.0] * 6)
    assert await poll(scaler) == (5, True)

    def dead(self: PoolPlanner, *_: object) -> None:
        raise RuntimeError("the forecaster has died")

    monkeypatch.setattr(PoolPlanner, "decide", dead)
    loop = asyncio.create_task(scaler.engine.run(5.0, 15_000))
    for _ in range(50):
        await scaler.clock.advance(60.0)
        assert await poll(scaler) == (5, True)
    assert not loop.done()
    loop.cancel()


async def test_pushes_come_when_the_state_changes(scalers: Scalers) -> None:
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
    for ask in (scaler.keda.IsActive, scaler.keda.GetMetricSpec):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(ref)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND and "known are m" in (
            caught.value.details() or ""
        )
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await scaler.keda.GetMetrics(
            keda.GetMetricsRequest(scaledObjectRef=REF, metricName="s0-penstock-m")
        )


async def test_a_restarted_scaler_answers_what_was_decided(scalers: Scalers) -> None:
    first = await scalers.make()
    await feed(first, [400.0] * 6)
    again = await scalers.make("b")
    assert await poll(again) == (4, True)
    assert len(again.engine.pools["m"].pool.samples) == 6


async def test_of_two_scalers_one_leads_and_both_answer_the_same(scalers: Scalers) -> None:
    first, second = await scalers.make("a"), await scalers.make("b")
    await feed(first, [700.0] * 6)
    await second.engine.tick()
    assert (first.engine.leads, second.engine.leads) == (True, False)
    assert await poll(first) == await poll(second) == (7, True)
    await first.engine.close()
    await second.engine.tick()
    assert second.engine.leads


async def test_a_fleet_that_cannot_be_seen_or_scaled_leaves_the_answer(scalers: Scalers) -> None:
    class Lost(DryRun):
        seen = True

        async def fleet(self) -> FleetStatus:
            if not self.seen:
                raise OSError("nobody answers")
            return await super().fleet()

        async def scale(self, wanted: int) -> None:
            raise OSError("refused")

    actuator = Lost(1)
    scaler = await scalers.make(actuator=actuator)
    await feed(scaler, [300.0] * 6)
    assert await poll(scaler) == (3, True)
    actuator.seen = False
    await feed(scaler, [900.0] * 2)
    assert await poll(scaler) == (3, True)
