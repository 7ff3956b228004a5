"""KEDA's external scaler, pull and push, answered from memory.

At each poll, KEDA asks for GetMetrics and then IsActive; an error in either fails the poll. The
metric is the number of instances wanted and its target is 1, so that HPA's formula gives that
number back. A scaler without fresh demand never answers zero: only demand that it sees could end
zero.

Names are compared without case. Kubernetes keeps the names of external metrics in lower case, so
KEDA may ask for a metric in another spelling than the one in its specification.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
from penstock.api.keda import externalscaler_pb2 as keda
from penstock.scaler.pools.autoscaler import Autoscaler
from penstock.scaler.pools.pool import Pool
from penstock.service.clock import Clock

PREFIX = "penstock-"
REPEAT_S = 30.0
"""How often a push stream repeats its state, for clients that missed a change."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExternalScaler:
    """externalscaler.ExternalScaler. A trigger names its pool as `pool` in its metadata."""

    def __init__(self, autoscaler: Autoscaler, clock: Clock) -> None:
        self._autoscaler = autoscaler
        self._clock = clock

    async def IsActive(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> keda.IsActiveResponse:
        pool = await self._pool(request, context)
        return keda.IsActiveResponse(result=self._wanted(pool) > 0)

    async def StreamIsActive(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> AsyncIterator[keda.IsActiveResponse]:
        pool = await self._pool(request, context)
        while True:
            changed = pool.changed
            yield keda.IsActiveResponse(result=self._wanted(pool) > 0)
            try:
                async with asyncio.timeout(REPEAT_S):
                    await changed.wait()
            except TimeoutError:
                continue

    async def GetMetricSpec(
        self, request: keda.ScaledObjectRef, context: Context
    ) -> keda.GetMetricSpecResponse:
        pool = await self._pool(request, context)
        spec = keda.MetricSpec(metricName=metric_name(pool.name), targetSize=1, targetSizeFloat=1.0)
        return keda.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: keda.GetMetricsRequest, context: Context
    ) -> keda.GetMetricsResponse:
        pool = await self._pool(request.scaledObjectRef, context)
        name = metric_name(pool.name)
        asked = request.metricName or name
        if asked.lower() != name:
            await _not_found(context, f"metricName: {asked!r} is not {name!r}")
        wanted = self._wanted(pool)
        value = keda.MetricValue(
            metricName=asked, metricValue=wanted, metricValueFloat=float(wanted)
        )
        return keda.GetMetricsResponse(metricValues=[value])

    def _wanted(self, pool: Pool) -> int:
        """The last decision; zero only while demand is fresh or another scaler leads."""
        age_s = self._clock.time() - pool.planner.measured_at_s
        if age_s <= pool.config.stale_after_s or not self._autoscaler.leads:
            return pool.wanted
        return max(1, pool.wanted)

    async def _pool(self, request: keda.ScaledObjectRef, context: Context) -> Pool:
        name = request.scalerMetadata.get("pool", "")
        pool = find_pool(self._autoscaler.pools, name)
        if pool is None:
            known = ", ".join(self._autoscaler.pools) or "none"
            await _not_found(
                context, f"scalerMetadata.pool: there is no pool {name!r}; known are {known}"
            )
        return pool


def find_pool(pools: Mapping[str, Pool], name: str) -> Pool | None:
    """The pool of that name, or the only one whose name differs in case alone."""
    exact = pools.get(name)
    if exact is not None:
        return exact
    similar = [pool for known, pool in pools.items() if known.lower() == name.lower()]
    return similar[0] if len(similar) == 1 else None


def metric_name(pool: str) -> str:
    """Return the metric's name: the pool's, in lower case and in characters that Kubernetes'
    metrics API can carry.

    Names of models often contain capitals and a slash.
    """
    return PREFIX + re.sub(r"[^a-z0-9_-]", "-", pool.lower())


async def _not_found(context: Context, text: str) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, text)
    raise AssertionError("abort raises")
