"""The view of the cache: what it answered, how right it was, and what another threshold would have
given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.cache.v1 import cache_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.sources import Sources
from penstock.console.views import charts
from penstock.console.views.blocks import Block, Cell, Chart, Note, Rows, Tile, Tiles
from penstock.console.views.format import Query, Row, away, dollars, metric_charts

HITS = ("exact", "semantic", "coalesced")
"""How the rules of answered look-ups begin."""


async def cache(sources: Sources, _: Query) -> Sequence[Block]:
    """Is the cache safe and useful?"""
    costs, traces, quality = await asyncio.gather(
        sources.ask(
            "telemetry", "GetCosts", pb.GetCostsRequest(by=pb.COST_BY_CACHE), pb.GetCostsResponse
        ),
        sources.ask(
            "telemetry",
            "SearchTraces",
            pb.SearchTracesRequest(name="RouterService", limit=200),
            pb.SearchTracesResponse,
        ),
        sources.ask("telemetry", "GetQuality", pb.GetQualityRequest(), pb.GetQualityResponse),
    )
    if costs is None or traces is None:
        return away(sources, "telemetry")
    rows: list[Row] = [
        [row.key or "not asked", f"{row.calls:,}", f"{row.mean_ms:.2f}", dollars(row.paid_microusd)]
        for row in costs.rows
    ]
    dots: dict[str, list[tuple[float, float]]] = {}
    for trace in traces.traces:
        dots.setdefault(trace.cache or "not asked", []).append(
            (float(trace.start_unix_ms), trace.duration_ms)
        )
    options = charts.scatter(dots, "time", "ms")
    options["xAxis"] = {"type": "time"}
    drifts: list[Row] = [
        [
            row.model,
            row.measure,
            f"{row.reference:.3f}",
            Cell(f"{row.now:.3f}", bad=row.drifted),
            str(row.observations),
        ]
        for row in (quality.rows if quality else ())
    ]
    return [
        *await _audits(sources),
        Rows(
            "Outcomes",
            ("outcome", "calls", "mean ms", "paid"),
            rows,
            "no call has been counted yet",
        ),
        Chart("Latency of recent requests by outcome", options),
        *await metric_charts(sources, "penstock.cache", "Cache"),
        Rows(
            "Against the reference period", ("model", "measure", "reference", "now", "seen"), drifts
        ),
    ]


async def _audits(sources: Sources) -> Sequence[Block]:
    """What the cache says of itself, for the tenant with the most calls; a note where it gives no
    answer.
    """
    tenants = await sources.ask(
        "telemetry",
        "GetCosts",
        pb.GetCostsRequest(by=pb.COST_BY_TENANT, limit=1),
        pb.GetCostsResponse,
    )
    tenant = tenants.rows[0].key if tenants and tenants.rows else ""
    stats, curve = await asyncio.gather(
        sources.ask(
            "cache", "GetStats", cache_pb2.GetStatsRequest(), cache_pb2.GetStatsResponse, tenant
        ),
        sources.ask(
            "cache",
            "GetTradeOff",
            cache_pb2.GetTradeOffRequest(),
            cache_pb2.GetTradeOffResponse,
            tenant,
        ),
    )
    if stats is None:
        return [
            Note(
                f"the cache gives no answer: {sources.refused.get('cache', 'not asked yet')}",
                bad=True,
            )
        ]
    looked = sum(stats.lookups.values())
    hits = sum(number for rule, number in stats.lookups.items() if rule.partition(":")[0] in HITS)
    right = f"{stats.audited_precision:.1%}" if stats.audits else "not yet audited"
    blocks: list[Block] = [
        Tiles(
            [
                Tile("look-ups", f"{looked:,}", f"{hits / looked:.1%} answered" if looked else ""),
                Tile(
                    "audited hits right",
                    right,
                    f"at least {stats.audited_precision_low:.1%} · {stats.audits:,} audits"
                    if stats.audits
                    else "",
                ),
                Tile("entries", f"{stats.entries:,}", f"{stats.bytes / 1e6:,.1f} MB"),
                Tile("saved, net", dollars(stats.saved_microusd), f"{stats.saved_ms / 1e3:,.2f} s"),
            ]
        )
    ]
    rules: list[Row] = [
        [rule, f"{number:,}"]
        for rule, number in sorted(stats.lookups.items(), key=lambda row: -row[1])
    ]
    blocks.append(
        Rows(
            "Look-ups by rule", ("rule", "look-ups"), rows=rules, empty="nothing was looked up yet"
        )
    )
    if curve is not None and curve.points:
        lines = {
            "hit rate": [(point.threshold, point.hit_rate) for point in curve.points],
            "wrong among hits": [(point.threshold, point.error_rate) for point in curve.points],
        }
        blocks.append(
            Chart(
                f"Threshold in force {curve.threshold:.3f}, and what others would give",
                charts.curve(lines, "threshold"),
            )
        )
    return blocks
