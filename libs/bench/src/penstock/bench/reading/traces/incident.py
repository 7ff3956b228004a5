"""The journey of an incident: from spans received over OTLP to an incident opened.

Telemetry runs alone and is sent a while of usual requests of a few services, then for each
recording slow ones of one service; the recording lasts until its incident is listed. Whatever
telemetry enters in any longer window without spans, while it is asked for incidents, is taken
away: its rounds, its look at the host, and what carries a question.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.api.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc
from penstock.bench.reading.traces.journey import (
    Journey,
    beyond,
    entered_always,
    entered_ever,
    journey,
)
from penstock.bench.reading.traces.stacks import Ground, alone
from penstock.bench.reading.traces.waiting import POLL_S, until
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack.plan import StackPlan

SERVICES = ("first", "second", "third")
"""One recording each: findings of one service within minutes are one incident."""
USUAL, SLOW, EVERY_S = 300, 60, 0.3
LONGER = 1.5
"""How many times longer a window without spans lasts, so that it misses no loop."""
USUAL_MS, SLOW_MS = 10.0, 60.0
FITTED = "penstock.anomaly.groups_fitted"
"""Telemetry's own figure: groups of requests whose usual times it has learnt."""


async def follow(ground: Ground) -> Journey:
    """Start telemetry, teach it what is usual, and record one incident for each service."""
    async with (
        alone(ground, ("telemetry",), {}, {}) as (plan, recorders),
        grpc.aio.insecure_channel(plan.addresses["telemetry"]) as channel,
    ):
        sender = Sender(channel, plan)
        await sender.begin()
        opened = [(await recorders.record(partial(sender.slow, name)))[0] for name in SERVICES[:1]]
        seconds = LONGER * opened[0].seconds
        idle = [(await recorders.record(partial(sender.idle, seconds)))[0] for _ in SERVICES]
        opened += [(await recorders.record(partial(sender.slow, name)))[0] for name in SERVICES[1:]]
    return journey(
        "Incident", beyond(entered_always(opened), entered_ever(idle)), opened[0], ground.tree
    )


class Sender:
    """Sends spans of requests, and asks for incidents."""

    def __init__(self, channel: grpc.aio.Channel, plan: StackPlan) -> None:
        self._traces = trace_service_pb2_grpc.TraceServiceStub(channel)
        self._telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        self._metadata = ((TOKEN_KEY, plan.token),)
        self._rng = random.Random(7)
        self._began_s = time.time() - (USUAL + SLOW) * EVERY_S

    async def begin(self) -> None:
        """Usual requests of every service; returns when what is usual has been learnt."""
        for name in SERVICES:
            await self._send(name, 0, USUAL, USUAL_MS)
        await until(self._all_fitted)

    async def slow(self, service: str) -> None:
        """Slow requests of a service; returns when its incident is there."""
        await self._send(service, USUAL, SLOW, SLOW_MS)

        async def there() -> bool:
            return service in await self._incidents()

        await until(there)

    async def idle(self, seconds: float) -> None:
        """Ask for incidents for so long, and send nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._incidents()
            await asyncio.sleep(POLL_S)

    async def _incidents(self) -> set[str]:
        answer = await self._telemetry.ListIncidents(
            telemetry_pb2.ListIncidentsRequest(), metadata=self._metadata
        )
        return {incident.service for incident in answer.incidents}

    async def _all_fitted(self) -> bool:
        request = telemetry_pb2.GetMetricsRequest(name=FITTED)
        answer = await self._telemetry.GetMetrics(request, metadata=self._metadata)
        fitted = max((row.points[-1].value for row in answer.series if row.points), default=0.0)
        return bool(fitted >= len(SERVICES))

    async def _send(self, service: str, first: int, count: int, middle_ms: float) -> None:
        request = trace_service_pb2.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.scope_spans.add().spans.extend(self._spans(first, count, middle_ms))
        await self._traces.Export(request)

    def _spans(self, first: int, count: int, middle_ms: float) -> Iterator[trace_pb2.Span]:
        """Requests of one span each, at even distances, whose times scatter about their middle."""
        for number in range(first, first + count):
            start_ns = round((self._began_s + number * EVERY_S) * 1e9)
            took_ms = middle_ms * self._rng.lognormvariate(0.0, 0.2)
            yield trace_pb2.Span(
                trace_id=self._rng.randbytes(16),
                span_id=self._rng.randbytes(8),
                name="Answer",
                kind=trace_pb2.Span.SPAN_KIND_SERVER,
                start_time_unix_nano=start_ns,
                end_time_unix_nano=start_ns + round(took_ms * 1e6),
            )
