"""The views: each asks the services one question and gives blocks. No drawing here.

A view is `async (sources, query) -> blocks`; the query is the page's address, so that an address
shows the same again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.sources import Sources
from penstock.console.views import charts
from penstock.console.views.blocks import Block, Cell, Chart, Form, Note, Rows, Tile, Tiles
from penstock.console.views.cache import cache
from penstock.console.views.format import Query, Row, away, dollars, link, metric_charts
from penstock.console.views.load import budgets, scaling
from penstock.console.views.money import savings
from penstock.console.views.trace import trace_blocks

SEARCHED, SHOWN = 300, 50
OWN_WORK = (
    "BatcherService/",
    "CacheService/",
    "InferenceService/",
    "LimiterService/",
    "ScalerService/",
)
"""Roots that no caller asked for, such as storing an answer after it has left; shown when a name or
`all=1` is asked for.
"""

Show = Callable[[Sources, Query], Awaitable[Sequence[Block]]]


@dataclass(frozen=True)
class View:
    """One page: its path, name, the key that opens it, the question it answers, and what shows
    it.
    """

    path: str
    name: str
    key: str
    question: str
    show: Show


async def overview(sources: Sources, query: Query) -> Sequence[Block]:
    """Is anything wrong now?"""
    found, intake, incidents = await asyncio.gather(
        sources.ask("telemetry", "GetOverview", pb.GetOverviewRequest(), pb.GetOverviewResponse),
        sources.ask("telemetry", "GetIntake", pb.GetIntakeRequest(), pb.GetIntakeResponse),
        sources.ask(
            "telemetry",
            "ListIncidents",
            pb.ListIncidentsRequest(open_only=True),
            pb.ListIncidentsResponse,
        ),
    )
    if found is None or intake is None:
        return away(sources, "telemetry")
    number = len(incidents.incidents) if incidents else 0
    tiles = [
        Tile("services", str(len(found.rows))),
        Tile(
            "calls a second",
            f"{sum(row.calls_per_s for row in found.rows if row.service == 'router'):.1f}",
            "at the router",
        ),
        Tile("open incidents", str(number), bad=number > 0),
        Tile("spans held", f"{intake.held_spans:,}", f"{intake.held_traces:,} traces"),
        Tile(
            "spans lost", str(intake.lost_by_senders), "by senders", bad=intake.lost_by_senders > 0
        ),
    ]
    rows: list[Row] = [
        [
            Cell(row.service, link("/traces", query, service=row.service)),
            str(row.instances),
            f"{row.calls_per_s:.1f}",
            Cell(f"{row.success:.2%}", share=row.success, bad=row.success < 0.99),
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
        ]
        for row in found.rows
    ]
    sparks = {
        row.service: [(float(n), value) for n, value in enumerate(row.spark)] for row in found.rows
    }
    chart = Chart("Calls a second, the last minute", _sparks(sparks), words="by service")
    return [
        Tiles(tiles),
        Rows("Services", ("service", "instances", "calls/s", "success", "p50 ms", "p99 ms"), rows),
        chart,
    ]


def _sparks(sparks: Mapping[str, list[tuple[float, float]]]) -> dict[str, object]:
    options = charts.over_time(sparks, "calls/s")
    last = max((len(points) for points in sparks.values()), default=1) - 1
    options["xAxis"] = {
        "type": "value",
        "min": 0,
        "max": last,
        "axisLabel": {"show": False},
        "splitLine": charts.FAINT,
    }
    return options


async def scoreboard(sources: Sources, _: Query) -> Sequence[Block]:
    """Why did the router choose that?"""
    found = await sources.ask(
        "router",
        "GetScoreboard",
        router_pb2.GetScoreboardRequest(),
        router_pb2.GetScoreboardResponse,
    )
    if found is None:
        return away(sources, "router")
    total = sum(row.picks for row in found.rows) or 1
    rows: list[Row] = []
    for row in found.rows:
        state = (
            router_pb2.InstanceState.Name(row.candidate.state)
            .removeprefix("INSTANCE_STATE_")
            .lower()
        )
        signals = ", ".join(f"{signal.name} {signal.value:.3g}" for signal in row.candidate.signals)
        rows.append(
            [
                row.instance.id,
                Cell(state, bad=state in ("ejected", "lost")),
                f"{row.candidate.score * 1e3:.3f}",
                Cell(f"{row.picks:,}", share=row.picks / total),
                Cell(str(row.failures), bad=row.failures > 0),
                str(row.in_flight),
                row.candidate.filtered_reason or signals,
            ]
        )
    branches = dict(found.branches)
    columns = (
        "instance",
        "state",
        "score: added ms",
        "picks",
        "failures",
        "in flight",
        "made from",
    )
    return [
        Note(f"strategy: {found.strategy}; the lowest score wins"),
        Rows("Instances", columns, rows, "no instance has registered"),
        Chart(
            "Why picked",
            charts.bars(list(branches), {"picks": [float(n) for n in branches.values()]}, "picks"),
        ),
    ]


async def queues(sources: Sources, _: Query) -> Sequence[Block]:
    """Who is waiting?"""
    found = await sources.ask(
        "batcher", "ListQueues", batcher_pb2.ListQueuesRequest(), batcher_pb2.ListQueuesResponse
    )
    if found is None:
        return away(sources, "batcher")
    depth: dict[str, dict[str, int]] = {}
    for queue in found.queues:
        for part in queue.classes:
            name = common_pb2.Priority.Name(part.priority).removeprefix("PRIORITY_").lower()
            depth.setdefault(name, {})[queue.instance_id] = part.depth
    rows: list[Row] = [
        [
            queue.instance_id,
            *(str(by.get(queue.instance_id, 0)) for by in depth.values()),
            f"{max((part.oldest_age_ms for part in queue.classes), default=0)}",
            f"{queue.running} of {queue.concurrency}",
        ]
        for queue in found.queues
    ]
    instances = [queue.instance_id for queue in found.queues]
    series = {
        name: [float(by.get(instance, 0)) for instance in instances] for name, by in depth.items()
    }
    return [
        Chart("Rows waiting by priority", charts.bars(instances, series, "rows", stacked=True)),
        Rows(
            "Queues",
            ("instance", *depth, "oldest ms", "batches running"),
            rows,
            "no instance has a queue",
        ),
        *await metric_charts(sources, "penstock.batcher", "Batcher"),
    ]


async def traces(sources: Sources, query: Query) -> Sequence[Block]:
    """What is flowing, and where did the time go?"""
    if query.get("id"):
        return await trace_blocks(sources, query)
    fields = {name: query.get(name, "") for name in ("tenant", "service", "name", "run_id")}
    try:
        slow_ms = float(query.get("min_ms") or 0)
    except ValueError:
        return [Note("min_ms must be a number", bad=True)]
    asked = pb.SearchTracesRequest(
        errors_only=query.get("errors") == "1", min_duration_ms=slow_ms, limit=SEARCHED
    )
    for name, value in fields.items():
        setattr(asked, name, value)
    found = await sources.ask("telemetry", "SearchTraces", asked, pb.SearchTracesResponse)
    if found is None:
        return away(sources, "telemetry")
    every = query.get("all") == "1" or bool(fields["name"])
    shown = [row for row in found.traces if every or not row.name.startswith(OWN_WORK)]
    rows: list[Row] = [
        [
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
        for row in shown[:SHOWN]
    ]
    columns = ("trace", "operation", "tenant", "run", "model", "cache", "ms", "paid", "outcome")
    ticks = {name: query.get(name) == "1" for name in ("errors", "all", "pause")}
    form = Form({**fields, "min_ms": query.get("min_ms", "")}, ticks)
    return [form, Rows("Requests, newest first", columns, rows, "no request matches")]


async def graph(sources: Sources, _: Query) -> Sequence[Block]:
    """Who calls whom?"""
    found, path, tiers = await asyncio.gather(
        sources.ask(
            "telemetry", "GetServiceGraph", pb.GetServiceGraphRequest(), pb.GetServiceGraphResponse
        ),
        sources.ask(
            "telemetry", "GetCriticalPath", pb.GetCriticalPathRequest(), pb.GetCriticalPathResponse
        ),
        sources.ask("telemetry", "GetLatencies", pb.GetLatenciesRequest(), pb.GetLatenciesResponse),
    )
    if found is None:
        return away(sources, "telemetry")
    edges = [
        (
            edge.client,
            edge.server,
            float(edge.calls),
            f"{edge.calls} · {edge.p99_ms:.1f} ms",
            edge.errors > 0,
        )
        for edge in found.edges
    ]
    rows: list[Row] = [
        [
            f"{e.client} → {e.server}",
            f"{e.calls:,}",
            Cell(str(e.errors), bad=e.errors > 0),
            f"{e.p50_ms:.2f}",
            f"{e.p99_ms:.2f}",
            f"{e.hop_p50_ms:.2f}",
        ]
        for e in found.edges
    ]
    where: list[Row] = [
        [
            row.service,
            row.name,
            f"{row.total_ms:.1f}",
            Cell(f"{row.share:.1%}", share=row.share),
            f"{row.traces:,}",
        ]
        for row in (path.rows if path else ())
    ]
    latencies: list[Row] = [
        [row.name, row.tier, f"{row.requests:,}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}"]
        for row in (tiers.rows if tiers else ())
    ]
    return [
        Chart("Calls and 99th percentile; dashed where calls failed", charts.graph(edges), 340),
        Rows("Edges", ("edge", "calls", "errors", "p50 ms", "p99 ms", "hop p50 ms"), rows),
        Rows(
            "Where the time went: critical paths added up",
            ("service", "operation", "ms", "share", "traces"),
            where,
        ),
        Rows(
            "Latency by complexity",
            ("operation", "tier", "requests", "p50 ms", "p99 ms"),
            latencies,
        ),
    ]


async def incidents(sources: Sources, query: Query) -> Sequence[Block]:
    """What changed?"""
    found = await sources.ask(
        "telemetry", "ListIncidents", pb.ListIncidentsRequest(), pb.ListIncidentsResponse
    )
    if found is None:
        return away(sources, "telemetry")
    rows: list[Row] = []
    dots: dict[str, list[tuple[float, float]]] = {}
    for row in found.incidents:
        dots.setdefault(row.service, []).append((float(row.opened_unix_ms), row.severity))
        why = ", ".join(_why(part, row.subject) for part in row.contributions[:3])
        trace = (
            Cell(row.trace_ids[0][:12], link("/traces", query, id=row.trace_ids[0]))
            if row.trace_ids
            else ""
        )
        state = "open" if row.state == pb.INCIDENT_STATE_OPEN else "closed"
        rows.append(
            [
                Cell(state, bad=state == "open"),
                row.service,
                row.summary,
                f"{row.severity:.1f}",
                why,
                row.critical_section,
                trace,
            ]
        )
    options = charts.scatter(dots, "time", "severity")
    options["xAxis"] = {"type": "time"}
    columns = ("state", "service", "what", "severity", "features", "critical section", "trace")
    blocks: list[Block] = [Rows("Incidents", columns, rows, "no incident so far")]
    return [*blocks, Chart("Severity over time", options)] if rows else blocks


def _why(part: pb.Contribution, subject: str) -> str:
    """A feature's part; of an incident that has grown, also what else shows it."""
    other = f"{part.subject}: " if part.subject not in ("", subject) else ""
    return f"{other}{part.feature} {part.share:.0%}"


VIEWS = (
    View("/", "Overview", "1", "Is anything wrong now?", overview),
    View("/savings", "Savings", "2", "Is it worth it?", savings),
    View("/cache", "Cache", "3", "Is the cache safe and useful?", cache),
    View("/scoreboard", "Score board", "4", "Why did the router choose that?", scoreboard),
    View("/queues", "Queues", "5", "Who is waiting?", queues),
    View("/budgets", "Budgets", "6", "When do we run out?", budgets),
    View("/scaling", "Scaling", "7", "Did scaling act in time?", scaling),
    View("/traces", "Requests", "8", "What is flowing, and where did the time go?", traces),
    View("/graph", "Service graph", "9", "Who calls whom?", graph),
    View("/incidents", "Incidents", "0", "What changed?", incidents),
)
