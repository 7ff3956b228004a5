"""The journey of an incident: from spans received over OTLP to an incident opened.

Telemetry runs alone and receives usual requests of a few services for a while, then for each
recording slow ones of one service; the recording lasts until its incident is listed. Whatever
telemetry enters in any longer window without spans, while incidents are listed, is left out: its
background loops, its readings of the host, and what serves `ListIncidents`.
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
    build_journey,
    entered_in_all,
    entered_in_any,
    without_read,
)
from penstock.bench.reading.traces.stacks import StackInputs, run_programs
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack.plan import StackPlan
from penstock.testkit.eventually import eventually

SERVICES = ("first", "second", "third")
"""One recording each: findings of one service within minutes are one incident."""
USUAL_REQUESTS, SLOW_REQUESTS = 300, 60
REQUEST_INTERVAL_S = 0.3
LOG_SPREAD = 0.2
"""Standard deviation of the logarithm of a request's time."""
POLL_S = 0.05
INCIDENT_TIMEOUT_S = 60.0
IDLE_FACTOR = 1.5
"""How many times longer a window without spans lasts, so that every background loop runs in it."""
USUAL_MS, SLOW_MS = 10.0, 60.0
FITTED_GROUPS = "penstock.anomaly.groups_fitted"
"""A metric of telemetry itself: groups of requests whose baseline is fitted."""


async def follow(inputs: StackInputs) -> Journey:
    """Start telemetry, send it usual requests, and record one incident for each service."""
    async with (
        run_programs(inputs, ("telemetry",), {}, {}) as (plan, recorders),
        grpc.aio.insecure_channel(plan.addresses["telemetry"]) as channel,
    ):
        sender = SpanSender(channel, plan)
        await sender.send_usual()
        opened = [
            (await recorders.record(partial(sender.send_slow, name)))[0] for name in SERVICES[:1]
        ]
        seconds = IDLE_FACTOR * opened[0].seconds
        idle = [
            (await recorders.record(partial(sender.list_incidents, seconds)))[0] for _ in SERVICES
        ]
        opened += [
            (await recorders.record(partial(sender.send_slow, name)))[0] for name in SERVICES[1:]
        ]
    return build_journey(
        "Incident",
        without_read(entered_in_all(opened), entered_in_any(idle)),
        opened[0],
        inputs.tree,
    )


class SpanSender:
    """Sends spans of requests, and lists incidents."""

    def __init__(self, channel: grpc.aio.Channel, plan: StackPlan) -> None:
        self._traces = trace_service_pb2_grpc.TraceServiceStub(channel)
        self._telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        self._metadata = ((TOKEN_KEY, plan.token),)
        self._rng = random.Random(7)
        self._began_s = time.time() - (USUAL_REQUESTS + SLOW_REQUESTS) * REQUEST_INTERVAL_S

    async def send_usual(self) -> None:
        """Send usual requests of every service; returns when their baselines are fitted."""
        for name in SERVICES:
            await self._send(name, 0, USUAL_REQUESTS, USUAL_MS)
        await eventually(self._all_fitted, INCIDENT_TIMEOUT_S, every_s=POLL_S)

    async def send_slow(self, service: str) -> None:
        """Send slow requests of a service; returns when its incident is listed."""
        await self._send(service, USUAL_REQUESTS, SLOW_REQUESTS, SLOW_MS)

        async def is_listed() -> bool:
            return service in await self._services_with_incidents()

        await eventually(is_listed, INCIDENT_TIMEOUT_S, every_s=POLL_S)

    async def list_incidents(self, seconds: float) -> None:
        """List incidents for so many seconds, and send nothing."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            await self._services_with_incidents()
            await asyncio.sleep(POLL_S)

    async def _services_with_incidents(self) -> set[str]:
        answer = await self._telemetry.ListIncidents(
            telemetry_pb2.ListIncidentsRequest(), metadata=self._metadata
        )
        return {incident.service for incident in answer.incidents}

    async def _all_fitted(self) -> bool:
        request = telemetry_pb2.GetMetricsRequest(name=FITTED_GROUPS)
        answer = await self._telemetry.GetMetrics(request, metadata=self._metadata)
        fitted = max((row.points[-1].value for row in answer.series if row.points), default=0.0)
        return bool(fitted >= len(SERVICES))

    async def _send(self, service: str, first: int, count: int, median_ms: float) -> None:
        request = trace_service_pb2.ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        resource.scope_spans.add().spans.extend(self._spans(first, count, median_ms))
        await self._traces.Export(request)

    def _spans(self, first: int, count: int, median_ms: float) -> Iterator[trace_pb2.Span]:
        """Requests of one span each at equal intervals, whose times scatter about `median_ms`."""
        for number in range(first, first + count):
            start_ns = round((self._began_s + number * REQUEST_INTERVAL_S) * 1e9)
            took_ms = median_ms * self._rng.lognormvariate(0.0, LOG_SPREAD)
            yield trace_pb2.Span(
                trace_id=self._rng.randbytes(16),
                span_id=self._rng.randbytes(8),
                name="Answer",
                kind=trace_pb2.Span.SPAN_KIND_SERVER,
                start_time_unix_nano=start_ns,
                end_time_unix_nano=start_ns + round(took_ms * 1e6),
            )
