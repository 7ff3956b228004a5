"""The views of money: the savings ledger and cost. Each asks one question and gives blocks."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.sources import Sources
from penstock.console.views import charts
from penstock.console.views.blocks import Block, Chart, Form, Rows, Tile, Tiles
from penstock.console.views.format import Query, Row, away, dollars


async def savings(sources: Sources, query: Query) -> Sequence[Block]:
    """Is it worth it?"""
    asked = pb.GetSavingsRequest(tenant=query.get("tenant", ""))
    found = await sources.ask("telemetry", "GetSavings", asked, pb.GetSavingsResponse)
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
    rows: list[Row] = [
        [row.technique, dollars(row.microusd), f"{row.saved_ms:,.1f}"] for row in found.rows
    ]
    return [
        Form({"tenant": query.get("tenant", "")}),
        Tiles(tiles),
        Chart(
            "Full price each 10 s: paid, and saved by technique",
            charts.over_time({"paid": paid, **money}, "$", stacked=True),
        ),
        Rows(
            "By technique",
            ("technique", "saved", "ms saved"),
            rows,
            "no technique has saved anything yet",
        ),
        *await _costs(sources),
    ]


async def _costs(sources: Sources) -> list[Block]:
    blocks: list[Block] = []
    for title, by in (
        ("By tenant", pb.COST_BY_TENANT),
        ("By run", pb.COST_BY_RUN),
        ("By step", pb.COST_BY_STEP),
        ("By model", pb.COST_BY_MODEL),
        ("By tier", pb.COST_BY_TIER),
    ):
        found = await sources.ask(
            "telemetry", "GetCosts", pb.GetCostsRequest(by=by, limit=12), pb.GetCostsResponse
        )
        rows: list[Row] = [
            [
                row.key or "—",
                f"{row.calls:,}",
                dollars(row.paid_microusd),
                dollars(row.full_price_microusd - row.paid_microusd),
                ", ".join(
                    f"{part.technique} {dollars(part.microusd)}"
                    for part in row.savings
                    if part.microusd
                )
                or "—",
                f"{row.mean_ms:.1f}",
            ]
            for row in (found.rows if found else ())
        ]
        blocks.append(
            Rows(
                title,
                (title.split()[-1], "calls", "paid", "saved", "by technique", "mean ms"),
                rows,
            )
        )
    return blocks
