"""The cache: what it answered, how often audits found it right, what another threshold would
give.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from penstock.api.cache.v1 import cache_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Row, Rows, Tile, Tiles
from penstock.console.drawing.format import Query, dollars
from penstock.console.service_clients import ServiceClients
from penstock.console.views.metric_charts import metric_charts
from penstock.console.views.unavailable import unavailable

"""How the names of the rules begin by which a look-up was answered."""

NO_LOOKUP = "no look-up"
RECENT_REQUESTS = 200


async def show_cache(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """Is the cache safe and useful?"""
    costs, requests, quality = await asyncio.gather(
        clients.call(
            "telemetry", "GetCosts", pb.GetCostsRequest(by=pb.COST_BY_CACHE), pb.GetCostsResponse
        ),
        clients.call(
            "telemetry",
            "SearchTraces",
            pb.SearchTracesRequest(name="RouterService", limit=RECENT_REQUESTS),
            pb.SearchTracesResponse,
        ),
        clients.call("telemetry", "GetQuality", pb.GetQualityRequest(), pb.GetQualityResponse),
    )
    if costs is None or requests is None:
        return unavailable(clients, "telemetry")
    return [
        *await _cache_blocks(clients),
        _outcomes(costs.rows),
        _latencies([row for row in requests.traces if not row.background]),
        *await metric_charts(clients, "penstock.cache", "Cache"),
        _quality(quality.rows if quality else ()),
    ]


def _outcomes(costs: Iterable[pb.CostRow]) -> Rows:
    rows: list[Row] = [
        [row.key or NO_LOOKUP, f"{row.calls:,}", f"{row.mean_ms:.2f}", dollars(row.paid_microusd)]
        for row in costs
    ]
    columns = ("outcome", "calls", "mean ms", "paid")
    return Rows("Outcomes", columns, rows, "no call has been counted yet")


def _latencies(requests: Iterable[pb.TraceSummary]) -> Chart:
    dots: dict[str, list[tuple[float, float]]] = {}
    for row in requests:
        dot = (float(row.start_unix_ms), row.duration_ms)
        dots.setdefault(row.cache or NO_LOOKUP, []).append(dot)
    return Chart("Latency of recent requests by outcome", charts.dots_over_time(dots, "ms"))


def _quality(measures: Iterable[pb.QualityRow]) -> Rows:
    rows: list[Row] = [
        [
            row.model,
            row.measure,
            f"{row.reference:.3f}",
            Cell(f"{row.now:.3f}", bad=row.drifted),
            str(row.observations),
        ]
        for row in measures
    ]
    columns = ("model", "measure", "reference", "now", "observations")
    return Rows("Against the reference period", columns, rows)


async def _cache_blocks(clients: ServiceClients) -> list[Block]:
    """What the cache itself reports, for the tenant that has paid most."""
    tenant = await _largest_tenant(clients)
    stats, trade_off = await asyncio.gather(
        clients.call(
            "cache", "GetStats", cache_pb2.GetStatsRequest(), cache_pb2.GetStatsResponse, tenant
        ),
        clients.call(
            "cache",
            "GetTradeOff",
            cache_pb2.GetTradeOffRequest(),
            cache_pb2.GetTradeOffResponse,
            tenant,
        ),
    )
    if stats is None:
        return unavailable(clients, "cache")
    blocks: list[Block] = [Tiles(_tiles(stats)), _lookups(stats), _refused(stats)]
    if trade_off is not None and trade_off.points:
        blocks.append(_trade_off(trade_off))
    return blocks


async def _largest_tenant(clients: ServiceClients) -> str:
    request = pb.GetCostsRequest(by=pb.COST_BY_TENANT, limit=1)
    response = await clients.call("telemetry", "GetCosts", request, pb.GetCostsResponse)
    return response.rows[0].key if response and response.rows else ""


def _tiles(stats: cache_pb2.GetStatsResponse) -> list[Tile]:
    lookups = sum(stats.lookups.values())
    precision, audits = "not yet audited", ""
    if stats.audits:
        precision = f"{stats.audited_precision:.1%}"
        audits = f"at least {stats.audited_precision_low:.1%} · {stats.audits:,} audits"
    return [
        Tile("look-ups", f"{lookups:,}", f"{stats.hits / lookups:.1%} answered" if lookups else ""),
        Tile("audited hits right", precision, audits),
        Tile("entries", f"{stats.entries:,}", f"{stats.bytes / 1e6:,.1f} MB"),
        Tile("saved, net", dollars(stats.saved_microusd), "time saved: see Savings"),
    ]


def _lookups(stats: cache_pb2.GetStatsResponse) -> Rows:
    most_first = sorted(stats.lookups.items(), key=lambda item: -item[1])
    rows: list[Row] = [[rule, f"{count:,}"] for rule, count in most_first]
    return Rows("Look-ups by rule", ("rule", "look-ups"), rows, "nothing was looked up yet")


def _refused(stats: cache_pb2.GetStatsResponse) -> Rows:
    most_first = sorted(stats.refused.items(), key=lambda item: -item[1])
    rows: list[Row] = [[reason, f"{count:,}"] for reason, count in most_first]
    columns = ("reason", "answers")
    return Rows("Answers not stored, or not learnt from", columns, rows, "all answers were stored")


def _trade_off(trade_off: cache_pb2.GetTradeOffResponse) -> Chart:
    lines = {
        "hit rate": [(point.threshold, point.hit_rate) for point in trade_off.points],
        "wrong among hits": [(point.threshold, point.error_rate) for point in trade_off.points],
    }
    title = f"Threshold in force {trade_off.threshold:.3f}, and what others would give"
    return Chart(title, charts.curve(lines, "threshold"))
