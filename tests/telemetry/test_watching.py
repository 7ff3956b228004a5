"""The streams of TelemetryService: incidents and requests as they happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call
from penstock.telemetry.api.telemetry_service import TelemetryServicer
from penstock.telemetry.detection.incidents import Contribution, Finding
from penstock.telemetry.spans.spans import Source
from penstock.telemetry.store import MAX_QUEUED_TRACES, TelemetryStore
from penstock.testkit.clock import FakeClock

from .otlp import otlp_span

SOURCE = Source("shop", "1")


@contextlib.asynccontextmanager
async def watching(stream: Any) -> AsyncIterator[asyncio.Future[Any]]:
    """Subscribes by asking for the first message of a stream; closes it at the end."""
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # runs the stream to where it waits
    yield first
    await stream.aclose()


def settle_traces(store: TelemetryStore, clock: FakeClock, numbers: range) -> None:
    """One trace of one span for each number."""
    source = store.window.source_number(SOURCE)
    for number in numbers:
        span = otlp_span(number, trace_id=number.to_bytes(16, "big"))
        store.window.add(span, source, clock.monotonic() - 100.0)
    while store.settle():
        pass


async def test_a_watcher_sees_an_incident_open_grow_and_close() -> None:
    store = TelemetryStore(FakeClock(), 1 << 20)
    incidents = store.detection.incidents
    request = pb.WatchIncidentsRequest(service="router")
    stream = TelemetryServicer(store).WatchIncidents(request, Call())
    async with watching(stream) as first:
        incidents.report(Finding("cache", "y", "metric", 9.0, 4.0, "other"))
        part = Contribution("latency_ms", 0.9, 40.0, 10.0)
        incidents.report(
            Finding("router", "x", "requests", 10.0, 6.0, "slow", (part,), "router Embed", ("ab",))
        )
        opened = (await first).incident
        assert (opened.summary, opened.state) == ("slow", pb.INCIDENT_STATE_OPEN)
        assert opened.contributions[0].feature == "latency_ms"
        assert opened.critical_section == "router Embed"

        incidents.report(Finding("router", "z", "metric", 20.0, 4.0, "more"))
        assert (await anext(stream)).incident.alerts == 2

        incidents.close_quiet(1000.0)
        assert (await anext(stream)).incident.state == pb.INCIDENT_STATE_CLOSED


async def test_a_watcher_gets_so_many_requests_a_second_and_the_number_left_out() -> None:
    clock = FakeClock(1000.0)
    store = TelemetryStore(clock, 1 << 20)
    request = pb.WatchRequestsRequest(max_per_s=1.0)
    stream = TelemetryServicer(store).WatchRequests(request, Call())
    async with watching(stream) as first:
        settle_traces(store, clock, range(1, 5))
        assert (await first).skipped == 0
        second = asyncio.ensure_future(anext(stream))
        await clock.advance(1.0)
        settle_traces(store, clock, range(5, 6))
        assert (await second).skipped == 3


async def test_a_slow_watcher_learns_how_many_requests_it_missed() -> None:
    clock = FakeClock(1000.0)
    store = TelemetryStore(clock, 1 << 20)
    request = pb.WatchRequestsRequest(max_per_s=1.0)
    stream = TelemetryServicer(store).WatchRequests(request, Call())
    async with watching(stream) as first:
        settle_traces(store, clock, range(1, MAX_QUEUED_TRACES + 11))
        assert (await first).skipped == 10
