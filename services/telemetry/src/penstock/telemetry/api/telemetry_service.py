"""The door of the queries: TelemetryService over the store.

Each RPC is three moves: read the question, ask the store, write the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, not_found
from penstock.telemetry.export.forwarding import Forwarder
from penstock.telemetry.ledger import to_proto as account_answers
from penstock.telemetry.queries import queries as questions
from penstock.telemetry.queries import to_proto as answers
from penstock.telemetry.spans.spans import Tree
from penstock.telemetry.store import Store

SHORTEST_PREFIX = 6


class TelemetryServicer:
    """Answers from the store; changes nothing."""

    def __init__(self, store: Store, forwarder: Forwarder | None = None) -> None:
        self._store = store
        self._forwarder = forwarder

    async def GetTrace(self, request: pb.GetTraceRequest, call: Call) -> pb.GetTraceResponse:
        """See the contract."""
        wanted = request.trace_id.lower()
        if not SHORTEST_PREFIX <= len(wanted) <= 32 or not set(wanted) <= set("0123456789abcdef"):
            raise invalid("trace_id", "must be 6 to 32 hexadecimal digits")
        found = self._store.window.find(wanted)
        if len(found) > 1:
            raise invalid("trace_id", "more than one trace begins so; give more digits")
        spans = self._store.window.spans(found[0]) if found else []
        if not spans:
            raise not_found(
                "trace_id", "no such trace is held; it may be too old or was not recorded"
            )
        return answers.trace(found[0], Tree(spans), self._store.window.summary(found[0]))

    async def SearchTraces(
        self, request: pb.SearchTracesRequest, call: Call
    ) -> pb.SearchTracesResponse:
        """See the contract."""
        if request.limit > questions.MOST_ROWS:
            raise invalid("limit", f"at most {questions.MOST_ROWS}")
        found = questions.search(self._store, request)
        return pb.SearchTracesResponse(traces=[answers.summary(row) for row in found])

    async def GetCriticalPath(
        self, request: pb.GetCriticalPathRequest, call: Call
    ) -> pb.GetCriticalPathResponse:
        """See the contract."""
        high = request.to_percentile or 100.0
        if not 0 <= request.from_percentile < high <= 100:
            raise invalid("from_percentile", "must lie below to_percentile, both within 0 to 100")
        trees = questions.sample_trees(self._store, request, high)
        return await asyncio.to_thread(answers.critical_path_table, trees)

    async def GetServiceGraph(
        self, request: pb.GetServiceGraphRequest, call: Call
    ) -> pb.GetServiceGraphResponse:
        """See the contract."""
        return answers.edges(
            questions.edges(self._store, *questions.period(request.window, self._now()))
        )

    async def GetSavings(self, request: pb.GetSavingsRequest, call: Call) -> pb.GetSavingsResponse:
        """See the contract."""
        period = questions.period(request.window, self._now())
        return account_answers.savings(self._store.ledger.over_time(*period, request.tenant))

    async def GetCosts(self, request: pb.GetCostsRequest, call: Call) -> pb.GetCostsResponse:
        """See the contract."""
        key = questions.cost_key(request.by)
        rows = self._store.ledger.by(key, request.tenant, request.run_id)
        return account_answers.costs(rows[: request.limit or 100])

    async def GetLatencies(
        self, request: pb.GetLatenciesRequest, call: Call
    ) -> pb.GetLatenciesResponse:
        """See the contract."""
        return answers.latencies(
            questions.latencies(self._store, *questions.period(request.window, self._now()))
        )

    async def GetOverview(
        self, request: pb.GetOverviewRequest, call: Call
    ) -> pb.GetOverviewResponse:
        """See the contract."""
        from_s, to_s = questions.period(request.window, self._now())
        if not request.window.from_unix_ms:
            from_s = to_s - 60.0
        return answers.overview(self._store.series, from_s, to_s)

    async def GetMetrics(self, request: pb.GetMetricsRequest, call: Call) -> pb.GetMetricsResponse:
        """See the contract."""
        if not request.name:
            return pb.GetMetricsResponse(names=self._store.series.names())
        period = questions.period(request.window, self._now())
        return answers.series(self._store.series.find(request.name, request.service), *period)

    async def GetQuality(self, request: pb.GetQualityRequest, call: Call) -> pb.GetQualityResponse:
        """See the contract."""
        return answers.quality(self._store.quality.rows())

    async def ListIncidents(
        self, request: pb.ListIncidentsRequest, call: Call
    ) -> pb.ListIncidentsResponse:
        """See the contract."""
        from_s, to_s = questions.period(request.window, self._now())
        found = [
            incident
            for incident in self._store.incidents.all()
            if request.service in ("", incident.service)
            and (incident.open or not request.open_only)
            and incident.opened_unix_s <= to_s
            and incident.last_unix_s >= from_s
        ]
        return pb.ListIncidentsResponse(incidents=[answers.incident(row) for row in found])

    async def WatchIncidents(
        self, request: pb.WatchIncidentsRequest, call: Call
    ) -> AsyncIterator[pb.WatchIncidentsResponse]:
        """See the contract."""
        async for incident in self._store.incidents.watch():
            if request.service in ("", incident.service):
                yield pb.WatchIncidentsResponse(incident=answers.incident(incident))

    async def WatchRequests(
        self, request: pb.WatchRequestsRequest, call: Call
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        """See the contract."""
        gap_s = 1.0 / (request.max_per_s or 20.0)
        next_s, skipped = 0.0, 0
        async for row in self._store.follow():
            if request.tenant not in ("", row.tenant) or (request.errors_only and not row.error):
                continue
            now = self._store.clock.monotonic()
            if now < next_s:
                skipped += 1
                continue
            next_s = now + gap_s
            yield pb.WatchRequestsResponse(trace=answers.summary(row), skipped=skipped)
            skipped = 0

    async def GetIntake(self, request: pb.GetIntakeRequest, call: Call) -> pb.GetIntakeResponse:
        """See the contract."""
        return answers.intake(self._store, self._forwarder)

    def _now(self) -> float:
        return self._store.clock.time()
