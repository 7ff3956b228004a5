"""The views of money and use: savings, cache, budgets, demand. Each asks one question and gives blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console import charts
from penstock.console.adapters import Sources
from penstock.console.asking import Query, Row, away, dollars, metric_charts
from penstock.console.blocks import Block, Cell, Chart, Form, Note, Rows, Tile, Tiles


async def savings(sources: Sources, query: Query) -> Sequence[Block]:
    """Is it worth it?"""
    asked = pb.SavingsRequest(tenant=query.get("tenant", ""))
    found = await sources.ask("telemetry", "Savings", asked, pb.SavingsResponse)
    if found is None:
        return away(sources, "telemetry")
    saved = found.full_price_microusd - found.paid_microusd
    share = saved / found.full_price_microusd if found.full_price_microusd else 0.0
    tiles = [
        Tile("paid", dollars(found.paid_microusd), f"{found.calls:,} calls"),
        Tile("full price", dollars(found.full_price_microusd), "without Penstock"),
        Tile("saved, net", dollars(saved), f"{share:.1%} of full price"),
        Tile("time saved", f"{sum(row.saved_ms for row in found.rows) / 1e3:,.2f} s"),
        Tile(
            "unattributed",
            dollars(found.unattributed_microusd),
            "0 when receipts add up",
            bad=found.unattributed_microusd != 0,
        ),
    ]
    names = [row.technique for row in found.rows]
    money: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for point in found.points:
        by_name = {row.technique: row.microusd for row in point.rows}
        for name in names:
            money[name].append((point.unix_ms, by_name.get(name, 0) / 1e6))
    paid = [(float(point.unix_ms), point.paid_microusd / 1e6) for point in found.points]
    rows: list[Row] = [[row.technique, dollars(row.microusd), f"{row.saved_ms:,.1f}"] for row in found.rows]
    return [
        Form({"tenant": query.get("tenant", "")}),
        Tiles(tiles),
        Chart(
            "Full price each 10 s: paid, and saved by technique",
            charts.over_time({"paid": paid, **money}, "$", stacked=True),
        ),
        Rows("By technique", ("technique", "saved", "ms saved"), rows, "no technique has saved anything yet"),
        *await _costs(sources),
    ]


async def _costs(sources: Sources) -> list[Block]:
    blocks: list[Block] = []
    for title, by in (
        ("By tenant", pb.COST_BY_TENANT),
        ("By run", pb.COST_BY_RUN),
        ("By step", pb.COST_BY_STEP),
        ("By model", pb.COST_BY_MODEL),
    ):
        found = await sources.ask("telemetry", "Costs", pb.CostsRequest(by=by, limit=12), pb.CostsResponse)
        rows: list[Row] = [
            [
                row.key or "—",
                f"{row.calls:,}",
                dollars(row.paid_microusd),
                dollars(row.full_price_microusd - row.paid_microusd),
                f"{row.mean_ms:.1f}",
            ]
            for row in (found.rows if found else ())
        ]
        blocks.append(Rows(title, (title.split()[-1], "calls", "paid", "saved", "mean ms"), rows))
    return blocks


async def cache(sources: Sources, _: Query) -> Sequence[Block]:
    """Is the cache safe and useful?"""
    costs, traces, quality = await asyncio.gather(
        sources.ask("telemetry", "Costs", pb.CostsRequest(by=pb.COST_BY_CACHE), pb.CostsResponse),
        sources.ask("telemetry", "SearchTraces", pb.SearchTracesRequest(limit=200), pb.SearchTracesResponse),
        sources.ask("telemetry", "Quality", pb.QualityRequest(), pb.QualityResponse),
    )
    if costs is None or traces is None:
        return away(sources, "telemetry")
    rows: list[Row] = [
        [row.key or "not asked", f"{row.calls:,}", f"{row.mean_ms:.2f}", dollars(row.paid_microusd)]
        for row in costs.rows
    ]
    dots: dict[str, list[tuple[float, float]]] = {}
    for trace in traces.traces:
        dots.setdefault(trace.cache or "not asked", []).append((float(trace.start_unix_ms), trace.duration_ms))
    options = charts.scatter(dots, "time", "ms")
    options["xAxis"] = {"type": "time"}
    drifts: list[Row] = [
        [row.model, row.measure, f"{row.reference:.3f}", Cell(f"{row.now:.3f}", bad=row.drifted), str(row.observations)]
        for row in (quality.rows if quality else ())
    ]
    return [
        Rows("Outcomes", ("outcome", "calls", "mean ms", "paid"), rows, "no call has been counted yet"),
        Chart("Latency of recent requests by outcome", options),
        *await metric_charts(sources, "penstock.cache", "Cache"),
        Rows("Against the reference period", ("model", "measure", "reference", "now", "seen"), drifts),
    ]


async def budgets(sources: Sources, _: Query) -> Sequence[Block]:
    """When do we run out?"""
    tenants = await sources.ask("telemetry", "Costs", pb.CostsRequest(by=pb.COST_BY_TENANT, limit=6), pb.CostsResponse)
    if tenants is None:
        return away(sources, "telemetry")
    lines: dict[str, list[tuple[float, float]]] = {}
    rows: list[Row] = []
    for row in tenants.rows:
        spent = await sources.ask("telemetry", "Savings", pb.SavingsRequest(tenant=row.key), pb.SavingsResponse)
        points, total = [], 0
        for point in spent.points if spent else ():
            total += point.paid_microusd
            points.append((float(point.unix_ms), total / 1e6))
        lines[row.key or "—"] = points
        span_s = (points[-1][0] - points[0][0]) / 1e3 + 10 if points else 0
        rate = int(total / span_s * 3600) if span_s else 0
        rows.append([row.key or "—", f"{row.calls:,}", dollars(row.paid_microusd), f"{dollars(rate)} an hour"])
    return [
        Chart("Spent by tenant", charts.over_time(lines, "$")),
        Rows("Tenants", ("tenant", "calls", "spent", "at this rate"), rows, "nobody has spent anything yet"),
        *await metric_charts(sources, "penstock.limiter", "Limiter"),
    ]


async def scaling(sources: Sources, _: Query) -> Sequence[Block]:
    """Did scaling act in time?"""
    found = await sources.ask("telemetry", "Savings", pb.SavingsRequest(), pb.SavingsResponse)
    if found is None:
        return away(sources, "telemetry")
    demand = [(float(point.unix_ms), point.calls / 10) for point in found.points]
    return [
        Chart("Demand", charts.over_time({"calls a second": demand}, "calls/s", steps=("calls a second",))),
        *(await metric_charts(sources, "penstock.scaler", "Scaler") or [Note("the scaler has sent nothing yet")]),
    ]
