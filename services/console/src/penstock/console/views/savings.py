"""Savings and cost: the ledger over time and by technique, costs by tenant, run, step, model,
tier.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Chart, Form, Row, Rows, Tile, Tiles
from penstock.console.drawing.format import Query, dollars
from penstock.console.service_clients import ServiceClients
from penstock.console.views.unavailable import unavailable

COST_TABLES = (
    ("tenant", pb.COST_BY_TENANT),
    ("run", pb.COST_BY_RUN),
    ("step", pb.COST_BY_STEP),
    ("model", pb.COST_BY_MODEL),
    ("tier", pb.COST_BY_TIER),
)
MAX_COST_ROWS = 12


async def show_savings(clients: ServiceClients, query: Query) -> Sequence[Block]:
    """Is it worth it?"""
    tenant = query.get("tenant", "")
    request = pb.GetSavingsRequest(tenant=tenant)
    savings = await clients.call("telemetry", "GetSavings", request, pb.GetSavingsResponse)
    if savings is None:
        return unavailable(clients, "telemetry")
    rows: list[Row] = [
        [row.technique, dollars(row.microusd), f"{row.saved_ms:,.1f}"] for row in savings.rows
    ]
    return [
        Form({"tenant": tenant}),
        Tiles(_tiles(savings)),
        Chart(
            "Full price each 10 s: paid, and saved by technique",
            charts.over_time(_dollars_over_time(savings), "$", stacked=True),
        ),
        Rows(
            "By technique",
            ("technique", "saved", "ms saved"),
            rows,
            "no technique has saved anything yet",
        ),
        *[await _cost_table(clients, name, by) for name, by in COST_TABLES],
    ]


def _tiles(savings: pb.GetSavingsResponse) -> list[Tile]:
    full_price = savings.full_price_microusd
    saved = full_price - savings.paid_microusd
    share = saved / full_price if full_price else 0.0
    saved_s = sum(row.saved_ms for row in savings.rows) / 1e3
    unattributed = savings.unattributed_microusd
    return [
        Tile("paid", dollars(savings.paid_microusd), f"{savings.calls:,} calls"),
        Tile("full price", dollars(full_price), "without Penstock"),
        Tile("saved, net", dollars(saved), f"{share:.1%} of full price"),
        Tile("time saved", f"{saved_s:,.2f} s"),
        Tile(
            "unattributed",
            dollars(unattributed),
            "0 when receipts add up",
            bad=unattributed != 0,
        ),
    ]


def _dollars_over_time(savings: pb.GetSavingsResponse) -> dict[str, list[tuple[float, float]]]:
    """What was paid, and what each technique saved, in each step of the ledger."""
    techniques = [row.technique for row in savings.rows]
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in ("paid", *techniques)}
    for point in savings.points:
        saved = {row.technique: row.microusd for row in point.rows}
        unix_ms = float(point.unix_ms)
        lines["paid"].append((unix_ms, point.paid_microusd / 1e6))
        for name in techniques:
            lines[name].append((unix_ms, saved.get(name, 0) / 1e6))
    return lines


async def _cost_table(clients: ServiceClients, name: str, by: pb.CostBy) -> Rows:
    request = pb.GetCostsRequest(by=by, limit=MAX_COST_ROWS)
    response = await clients.call("telemetry", "GetCosts", request, pb.GetCostsResponse)
    columns = (name, "calls", "paid", "saved", "by technique", "mean ms")
    rows = [_cost_row(row) for row in (response.rows if response else ())]
    return Rows(f"By {name}", columns, rows)


def _cost_row(row: pb.CostRow) -> Row:
    techniques = [
        f"{part.technique} {dollars(part.microusd)}" for part in row.savings if part.microusd
    ]
    return [
        row.key or "—",
        f"{row.calls:,}",
        dollars(row.paid_microusd),
        dollars(row.full_price_microusd - row.paid_microusd),
        ", ".join(techniques) or "—",
        f"{row.mean_ms:.1f}",
    ]
