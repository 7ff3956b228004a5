"""The service graph, critical paths added up, and latency by complexity tier."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Row, Rows
from penstock.console.drawing.format import Query
from penstock.console.service_clients import ServiceClients
from penstock.console.views.unavailable import unavailable

GRAPH_TITLE = "Calls and 99th percentile; dashed where calls failed"
PATHS_TITLE = "Where the time went: critical paths added up"


async def show_graph(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """Who calls whom?"""
    graph, paths, latencies = await asyncio.gather(
        clients.call(
            "telemetry", "GetServiceGraph", pb.GetServiceGraphRequest(), pb.GetServiceGraphResponse
        ),
        clients.call(
            "telemetry", "GetCriticalPath", pb.GetCriticalPathRequest(), pb.GetCriticalPathResponse
        ),
        clients.call(
            "telemetry", "GetLatencies", pb.GetLatenciesRequest(), pb.GetLatenciesResponse
        ),
    )
    if graph is None:
        return unavailable(clients, "telemetry")
    edges = [
        charts.GraphEdge(
            edge.client,
            edge.server,
            float(edge.calls),
            f"{edge.calls} · {edge.p99_ms:.1f} ms",
            bad=edge.errors > 0,
        )
        for edge in graph.edges
    ]
    return [
        Chart(GRAPH_TITLE, charts.graph(edges), charts.graph_height_px(edges)),
        _edge_table(graph.edges),
        _path_table(paths.rows if paths else ()),
        _latency_table(latencies.rows if latencies else ()),
    ]


def _edge_table(edges: Sequence[pb.Edge]) -> Rows:
    rows: list[Row] = [
        [
            f"{edge.client} → {edge.server}",
            f"{edge.calls:,}",
            Cell(str(edge.errors), bad=edge.errors > 0),
            f"{edge.p50_ms:.2f}",
            f"{edge.p99_ms:.2f}",
            f"{edge.hop_p50_ms:.2f}",
        ]
        for edge in edges
    ]
    return Rows("Edges", ("edge", "calls", "errors", "p50 ms", "p99 ms", "hop p50 ms"), rows)


def _path_table(paths: Sequence[pb.CriticalPathRow]) -> Rows:
    rows: list[Row] = [
        [
            row.service,
            row.name,
            f"{row.total_ms:.1f}",
            Cell(f"{row.share:.1%}", share=row.share),
            f"{row.traces:,}",
        ]
        for row in paths
    ]
    return Rows(PATHS_TITLE, ("service", "operation", "ms", "share", "traces"), rows)


def _latency_table(latencies: Sequence[pb.LatencyRow]) -> Rows:
    rows: list[Row] = [
        [row.name, row.tier, f"{row.requests:,}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}"]
        for row in latencies
    ]
    columns = ("operation", "tier", "requests", "p50 ms", "p99 ms")
    return Rows("Latency by complexity", columns, rows)
