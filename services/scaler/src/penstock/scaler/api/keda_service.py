"""KEDA's external scaler, pull and push.

Every answer comes from memory; a scaler that knows nothing new is never the reason for zero.

KEDA asks GetMetrics and then IsActive at each poll, with the metric's name without its own prefix;
an error in either fails the poll. The metric is the number of instances wanted and its target is 1,
so that HPA's formula gives that number back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.pool import Pool
from penstock.service.clock import Clock

PREFIX = "penstock-"
REPEAT_S = 30.0
"""A push stream repeats its state so often, so that a client that missed a change is wrong no
longer than this.
"""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExternalScaler:
    """externalscaler.ExternalScaler. A trigger names its pool as `pool` in its metadata."""

    def __init__(self, engine: Autoscaler, clock: Clock) -> None:
        self._engine, self._clock = engine, clock

    async def IsActive(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> keda.IsActiveResponse:
        running = await self._running(request, context)
        return keda.IsActiveResponse(result=self._wanted(running) > 0)

    async def StreamIsActive(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> AsyncIterator[keda.IsActiveResponse]:
        running = await self._running(request, context)
        while True:
            changed = running.changed
            yield keda.IsActiveResponse(result=self._wanted(running) > 0)
            try:
                async with asyncio.timeout(REPEAT_S):
                    await changed.wait()
            except TimeoutError:
                continue

    async def GetMetricSpec(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> keda.GetMetricSpecResponse:
        running = await self._running(request, context)
        spec = keda.MetricSpec(metricName=_metric(running), targetSize=1, targetSizeFloat=1.0)
        return keda.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: keda.GetMetricsRequest, context: Context
    ) -> keda.GetMetricsResponse:
        running = await self._running(request.scaledObjectRef, context)
        if request.metricName not in ("", _metric(running)):
            said = f"metricName: {request.metricName!r} is not {_metric(running)!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, said)
        wanted = self._wanted(running)
        value = keda.MetricValue(
            metricName=_metric(running), metricValue=wanted, metricValueFloat=float(wanted)
        )
        return keda.GetMetricsResponse(metricValues=[value])

    def _wanted(self, running: Pool) -> int:
        """The last answer.

        Zero only while demand is fresh: nobody else would see the work that should end it.
        """
        fresh = self._clock.time() - running.pool.measured_at <= running.pool.config.stale_s
        return running.answer if fresh or not self._engine.leads else max(1, running.answer)

    async def _running(self, request: keda.ScaledObjectRef, context: Context) -> Pool:
        name = request.scalerMetadata.get("pool", "")
        running = self._engine.pools.get(name)
        if running is None:
            known = ", ".join(self._engine.pools) or "none"
            said = f"scalerMetadata.pool: there is no pool {name!r}; known are {known}"
            await context.abort(grpc.StatusCode.NOT_FOUND, said)
        assert running is not None
        return running


def _metric(running: Pool) -> str:
    """The pool's name as the path of Kubernetes' metrics API can hold it: models are often named
    with a slash.
    """
    return PREFIX + re.sub(r"[^A-Za-z0-9_-]", "-", running.pool.config.name)
