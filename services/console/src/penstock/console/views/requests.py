"""Requests: the newest that match the filters, and one trace when its identifier is given."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing.blocks import Block, Cell, Form, Note, Row, Rows
from penstock.console.drawing.format import Query, dollars, link
from penstock.console.service_clients import ServiceClients
from penstock.console.views.trace import trace_blocks
from penstock.console.views.unavailable import unavailable

TEXT_FILTERS = ("tenant", "service", "name", "run_id")
CHECKBOXES = ("errors", "all", "pause")
MAX_SHOWN = 50


async def show_requests(clients: ServiceClients, query: Query) -> Sequence[Block]:
    """What is flowing, and where did the time go?"""
    if query.get("id"):
        return await trace_blocks(clients, query)
    texts = {name: query.get(name, "") for name in TEXT_FILTERS}
    try:
        min_ms = float(query.get("min_ms") or 0)
    except ValueError:
        return [Note("min_ms must be a number", bad=True)]
    request = pb.SearchTracesRequest(
        tenant=texts["tenant"],
        service=texts["service"],
        name=texts["name"],
        run_id=texts["run_id"],
        errors_only=query.get("errors") == "1",
        min_duration_ms=min_ms,
        limit=MAX_SHOWN,
        include_background=query.get("all") == "1" or bool(texts["name"]),
    )
    response = await clients.call("telemetry", "SearchTraces", request, pb.SearchTracesResponse)
    if response is None:
        return unavailable(clients, "telemetry")
    rows = [_request_row(row, query) for row in response.traces]
    columns = ("trace", "operation", "tenant", "run", "model", "cache", "ms", "paid", "outcome")
    checkboxes = {name: query.get(name) == "1" for name in CHECKBOXES}
    return [
        Form({**texts, "min_ms": query.get("min_ms", "")}, checkboxes),
        Rows("Requests, newest first", columns, rows, "no request matches"),
    ]


def _request_row(row: pb.TraceSummary, query: Query) -> Row:
    return [
        Cell(row.trace_id[:12], link("/traces", query, id=row.trace_id)),
        row.name,
        row.tenant,
        row.run_id,
        row.model,
        row.cache,
        f"{row.duration_ms:.2f}",
        dollars(row.paid_microusd),
        Cell(row.error or "ok", bad=bool(row.error)),
    ]
