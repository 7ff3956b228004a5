"""TelemetryService: queries of the store.

Each RPC checks its request, reads the store and converts.

What each RPC does is said in its contract, `penstock/api/telemetry/v1/telemetry.proto`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call
from penstock.telemetry.api.viewers import (
    check_is_operator,
    check_whole_id,
    may_see,
    tenant_shown,
)
from penstock.telemetry.export.forwarding import Forwarder
from penstock.telemetry.ledger import to_proto as ledger_to_proto
from penstock.telemetry.queries import queries, to_proto
from penstock.telemetry.queries.run_timeline import run_timeline
from penstock.telemetry.store import TelemetryStore
from penstock.telemetry.window.settled_traces import TraceSummary, summarise_trace

DEFAULT_COST_ROWS = 100
DEFAULT_MAX_PER_S = 20.0
OVERVIEW_S = 60.0


class TelemetryServicer:
    """Answers from the store, and changes nothing."""

    def __init__(self, store: TelemetryStore, forwarder: Forwarder | None = None) -> None:
        self._store = store
        self._forwarder = forwarder

    async def GetTrace(self, request: pb.GetTraceRequest, call: Call) -> pb.GetTraceResponse:
        check_whole_id(call, request.trace_id)
        trace_id, tree = queries.find_trace(self._store, request.trace_id)
        summary = self._store.window.summary(trace_id) or summarise_trace(trace_id, tree)
        if not may_see(call, summary.tenant):
            raise queries.no_trace()
        return to_proto.trace(trace_id, tree, self._store.window.summary(trace_id))

    async def GetRunTimeline(
        self, request: pb.GetRunTimelineRequest, call: Call
    ) -> pb.GetRunTimelineResponse:
        return await run_timeline(self._store, request, tenant_shown(call, ""))

    async def SearchTraces(
        self, request: pb.SearchTracesRequest, call: Call
    ) -> pb.SearchTracesResponse:
        tenant = tenant_shown(call, request.tenant)
        rows = queries.search_traces(self._store, request, tenant)
        return pb.SearchTracesResponse(traces=[to_proto.trace_summary(row) for row in rows])

    async def GetCriticalPath(
        self, request: pb.GetCriticalPathRequest, call: Call
    ) -> pb.GetCriticalPathResponse:
        tenant = tenant_shown(call, "")
        trees = queries.trees_in_percentiles(self._store, request, tenant)
        return await asyncio.to_thread(to_proto.critical_path_table, trees)

    async def GetServiceGraph(
        self, request: pb.GetServiceGraphRequest, call: Call
    ) -> pb.GetServiceGraphResponse:
        check_is_operator(call)
        period = self._period_s(request.window)
        return to_proto.service_graph(
            queries.edges(self._store, *period, request.include_background)
        )

    async def GetSavings(self, request: pb.GetSavingsRequest, call: Call) -> pb.GetSavingsResponse:
        period = self._period_s(request.window)
        tenant = tenant_shown(call, request.tenant)
        return ledger_to_proto.savings(self._store.ledger.steps_between(*period, tenant))

    async def GetCosts(self, request: pb.GetCostsRequest, call: Call) -> pb.GetCostsResponse:
        key = queries.cost_key(request.by)
        tenant = tenant_shown(call, request.tenant)
        totals = self._store.ledger.totals_by(key, tenant, request.run_id)
        return ledger_to_proto.costs(totals[: request.limit or DEFAULT_COST_ROWS])

    async def GetLatencies(
        self, request: pb.GetLatenciesRequest, call: Call
    ) -> pb.GetLatenciesResponse:
        check_is_operator(call)
        period = self._period_s(request.window)
        return to_proto.latencies(queries.latencies(self._store, *period))

    async def GetOverview(
        self, request: pb.GetOverviewRequest, call: Call
    ) -> pb.GetOverviewResponse:
        check_is_operator(call)
        from_s, to_s = self._period_s(request.window)
        if not request.window.from_unix_ms:
            from_s = to_s - OVERVIEW_S
        return to_proto.overview(self._store.series, from_s, to_s)

    async def GetMetrics(self, request: pb.GetMetricsRequest, call: Call) -> pb.GetMetricsResponse:
        check_is_operator(call)
        if not request.name:
            return pb.GetMetricsResponse(names=self._store.series.metric_names())
        period = self._period_s(request.window)
        return to_proto.metrics(self._store.series.find(request.name, request.service), *period)

    async def GetQuality(self, request: pb.GetQualityRequest, call: Call) -> pb.GetQualityResponse:
        check_is_operator(call)
        return to_proto.quality(self._store.detection.quality.rows())

    async def ListIncidents(
        self, request: pb.ListIncidentsRequest, call: Call
    ) -> pb.ListIncidentsResponse:
        check_is_operator(call)
        rows = queries.incidents(self._store, request)
        return pb.ListIncidentsResponse(incidents=[to_proto.incident(row) for row in rows])

    async def WatchIncidents(
        self, request: pb.WatchIncidentsRequest, call: Call
    ) -> AsyncIterator[pb.WatchIncidentsResponse]:
        check_is_operator(call)
        with self._store.detection.incidents.subscribe(
            lambda incident: request.service in ("", incident.service)
        ) as incidents:
            async for incident in incidents:
                yield pb.WatchIncidentsResponse(incident=to_proto.incident(incident))

    async def WatchRequests(
        self, request: pb.WatchRequestsRequest, call: Call
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        tenant = tenant_shown(call, request.tenant)

        def matches(row: TraceSummary) -> bool:
            is_tenants = tenant in ("", row.tenant)
            is_wanted = not row.background or request.include_background
            return is_tenants and is_wanted and (bool(row.error) or not request.errors_only)

        min_gap_s = 1.0 / (request.max_per_s or DEFAULT_MAX_PER_S)
        next_s = 0.0
        skipped = 0
        with self._store.subscribe(matches) as rows:
            async for row in rows:
                skipped += rows.take_missed()
                now_s = self._store.clock.monotonic()
                if now_s < next_s:
                    skipped += 1
                    continue
                next_s = now_s + min_gap_s
                yield pb.WatchRequestsResponse(trace=to_proto.trace_summary(row), skipped=skipped)
                skipped = 0

    async def GetIntake(self, request: pb.GetIntakeRequest, call: Call) -> pb.GetIntakeResponse:
        check_is_operator(call)
        return to_proto.intake(self._store, self._forwarder)

    def _period_s(self, window: pb.Window) -> tuple[float, float]:
        return queries.period_s(window, self._store.clock.time())
