"""GetRunTimeline: the calls of a run from the traces that are held, and the message of them."""

from __future__ import annotations

import asyncio

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.telemetry.queries.queries import limit_of_calls, no_calls, traces_of_run
from penstock.telemetry.spans.spans import SpanTree
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.run_timelines import (
    CallOfRun,
    PlacedCall,
    RunTimeline,
    calls_of_run,
    timeline_of,
)

READ_AT_ONCE = 20
"""Traces that are unpacked before other calls get their turn."""


async def run_timeline(
    store: TelemetryStore, request: pb.GetRunTimelineRequest, tenant: str
) -> pb.GetRunTimelineResponse:
    """The timeline of a tenant's run, empty for anybody's.

    Raises:
        Fault: the request cannot be, or no call is held.
    """
    limit = limit_of_calls(request.limit)
    trace_ids = traces_of_run(store, request.run_id)
    calls: list[CallOfRun] = []
    read = 0
    for trace_id in trace_ids:
        if len(calls) >= limit:
            break
        read += 1
        if read % READ_AT_ONCE == 0:
            await asyncio.sleep(0)
        if spans := store.window.spans(trace_id):
            calls += calls_of_run(trace_id, SpanTree(spans), request.run_id, tenant)
    if not calls:
        raise no_calls()
    timeline = await asyncio.to_thread(timeline_of, calls)
    return _message(timeline, len(trace_ids) - read)


def _message(timeline: RunTimeline, omitted: int) -> pb.GetRunTimelineResponse:
    rows = [call.call.summary for call in timeline.calls]
    return pb.GetRunTimelineResponse(
        calls=[_call(call, timeline.start_ns) for call in timeline.calls],
        start_unix_ns=timeline.start_ns,
        duration_ns=timeline.end_ns - timeline.start_ns,
        agent_ns=timeline.agent_ns,
        paid_microusd=sum(row.paid_microusd for row in rows),
        saved_microusd=sum(row.saved_microusd for row in rows),
        omitted_traces=omitted,
    )


def _call(placed: PlacedCall, start_ns: int) -> pb.RunCall:
    row, span = placed.call
    return pb.RunCall(
        run_id=row.run_id,
        step=row.step,
        trace_id=row.trace_id.hex(),
        span_id=span.span_id,
        name=row.name,
        offset_ns=span.start_ns - start_ns,
        duration_ns=span.duration_ns,
        error=row.error,
        model=row.model,
        cache=row.cache,
        paid_microusd=row.paid_microusd,
        saved_microusd=row.saved_microusd,
        critical_ns=placed.critical_ns,
        overlap_ns=placed.overlap_ns,
        gap_ns=placed.gap_ns,
    )
