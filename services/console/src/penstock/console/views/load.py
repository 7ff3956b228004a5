"""The views of limits and load: budgets with their burn-down, demand with forecast and scaling
decisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.scaler.v1 import scaler_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.sources import Sources
from penstock.console.views import charts
from penstock.console.views.blocks import Block, Cell, Chart, Note, Rows
from penstock.console.views.format import Query, Row, away, dollars, metric_charts

Points = list[tuple[float, float]]
WORK = "penstock.scaler.work."
RECENT_S = 600.0
"""The rate of the last ten minutes is what a burn-down is carried on with."""


async def budgets(sources: Sources, _: Query) -> Sequence[Block]:
    """When do we run out?"""
    tenants = await sources.ask(
        "telemetry",
        "GetCosts",
        pb.GetCostsRequest(by=pb.COST_BY_TENANT, limit=6),
        pb.GetCostsResponse,
    )
    if tenants is None:
        return away(sources, "telemetry")
    lines: dict[str, Points] = {}
    rows: list[Row] = []
    spending: list[Row] = []
    for row in tenants.rows:
        spent, usage = await asyncio.gather(
            sources.ask(
                "telemetry",
                "GetSavings",
                pb.GetSavingsRequest(tenant=row.key),
                pb.GetSavingsResponse,
            ),
            sources.ask(
                "limiter",
                "GetUsage",
                limiter_pb2.GetUsageRequest(),
                limiter_pb2.GetUsageResponse,
                row.key,
            ),
        )
        points = [(float(p.unix_ms), p.paid_microusd) for p in spent.points] if spent else []
        rate = _rate_s(points)
        spending.append(
            [
                row.key or "—",
                f"{row.calls:,}",
                dollars(row.paid_microusd),
                f"{dollars(int(rate * 3600))} an hour",
            ]
        )
        for rule in usage.rules if usage else ():
            rows.append(_rule_row(row.key, rule, rate))
            if rule.limit.microusd:
                left = rule.limit.microusd - rule.committed.microusd - rule.held.microusd
                lines |= _burn_down(f"{row.key} {rule.rule}", points, left, rate)
    away_note = [] if "limiter" not in sources.refused else away(sources, "limiter")
    columns = ("tenant", "rule", "used", "held", "limit", "window ends", "at this rate")
    title = "Left of each budget, and at the rate of the last ten minutes"
    burning = (
        Chart(title, charts.over_time(lines, "$", faint="forecast"))
        if lines
        else Note("no budget is in dollars")
    )
    return [
        *away_note,
        burning,
        Rows("Limits", columns, rows, "no rule limits anybody who has called so far"),
        Rows(
            "Tenants",
            ("tenant", "calls", "spent", "rate"),
            spending,
            "nobody has spent anything yet",
        ),
        *await metric_charts(sources, "penstock.limiter", "Limiter"),
    ]


def _rate_s(points: Sequence[tuple[float, int]]) -> float:
    """Micro-dollars a second of late; points are (Unix milliseconds, spent in that step of ten
    seconds).
    """
    if not points:
        return 0.0
    recent = [(at, amount) for at, amount in points if at >= points[-1][0] - RECENT_S * 1e3]
    return sum(amount for _, amount in recent) / ((recent[-1][0] - recent[0][0]) / 1e3 + 10.0)


def _burn_down(
    name: str, points: Sequence[tuple[float, int]], left: int, rate: float
) -> dict[str, Points]:
    """What was left at each step, counted back from what is left now, and a straight line on to
    nothing or for an hour.
    """
    now, back, past = time.time() * 1e3, left, []
    for at, amount in reversed(points):
        past.append((at, back / 1e6))
        back += amount
    ahead_s = min(left / rate, 3600.0) if rate > 0 else 3600.0
    forecast = [(now, left / 1e6), (now + ahead_s * 1e3, max(0.0, left - rate * ahead_s) / 1e6)]
    return {name: [*reversed(past), (now, left / 1e6)], f"{name} forecast": forecast}


def _rule_row(tenant: str, rule: limiter_pb2.RuleUsage, rate: float) -> Row:
    """One rule of one tenant, in whichever unit it counts."""
    unit = next(
        (name for name in ("microusd", "tokens", "requests") if getattr(rule.limit, name)),
        "requests",
    )
    limit, used, held = (
        int(getattr(part, unit)) for part in (rule.limit, rule.committed, rule.held)
    )
    ends = (
        time.strftime("%H:%M:%S", time.localtime(rule.window_ends_unix_ms / 1e3))
        if rule.window_ends_unix_ms
        else "—"
    )
    when = "—"
    if unit == "microusd" and rate > 0:
        when = f"runs out in {(limit - used - held) / rate / 3600:,.1f} h"
    share = (used + held) / limit if limit else 0.0
    shown = dollars if unit == "microusd" else lambda amount: f"{amount:,} {unit}"
    return [
        tenant,
        rule.rule,
        Cell(shown(used), share=share, bad=share > 0.9),
        shown(held),
        shown(limit),
        ends,
        when,
    ]


async def scaling(sources: Sources, _: Query) -> Sequence[Block]:
    """Did scaling act in time?"""
    found, decided = await asyncio.gather(
        sources.ask("telemetry", "GetSavings", pb.GetSavingsRequest(), pb.GetSavingsResponse),
        sources.ask(
            "scaler",
            "ListDecisions",
            scaler_pb2.ListDecisionsRequest(limit=200),
            scaler_pb2.ListDecisionsResponse,
        ),
    )
    if found is None:
        return away(sources, "telemetry")
    whole = found.points[:-1] or found.points  # the last step is not over yet
    demand = [(float(point.unix_ms), point.calls / 10) for point in whole]
    blocks: list[Block] = [
        Chart(
            "Demand",
            charts.over_time({"calls a second": demand}, "calls/s", steps=("calls a second",)),
        )
    ]
    if decided is None:
        return [*blocks, *away(sources, "scaler")]
    for pool in dict.fromkeys(decision.pool for decision in decided.decisions):
        blocks += await _pool(sources, pool, [one for one in decided.decisions if one.pool == pool])
    rows: list[Row] = [
        [
            time.strftime("%H:%M:%S", time.localtime(one.made_unix_ms / 1e3)),
            one.pool,
            f"{one.current} → {one.wanted}",
            str(one.reactive_floor),
            f"{one.forecast:.1f} at {one.level:.0%}",
            one.reason,
        ]
        for one in decided.decisions[:30]
    ]
    columns = ("when", "pool", "instances", "demand alone", "forecast work", "because")
    charts_of_it = await metric_charts(sources, "penstock.scaler", "Scaler")
    return [
        *blocks,
        Rows("Decisions, newest first", columns, rows, "the scaler has decided nothing yet"),
        *charts_of_it,
    ]


async def _pool(
    sources: Sources, pool: str, decisions: Sequence[scaler_pb2.Decision]
) -> list[Block]:
    """A pool's forecast beside what past forecasts were made for, and its instances."""
    ahead, arrived = await asyncio.gather(
        sources.ask(
            "scaler",
            "GetForecast",
            scaler_pb2.GetForecastRequest(pool=pool),
            scaler_pb2.GetForecastResponse,
        ),
        sources.ask(
            "telemetry",
            "GetMetrics",
            pb.GetMetricsRequest(name=f"{WORK}{pool}"),
            pb.GetMetricsResponse,
        ),
    )
    if ahead is None:
        return [
            Note(f"the scaler gives no forecast for {pool}: {sources.refused.get('scaler', '')}")
        ]
    old = sorted(decisions, key=lambda one: one.made_unix_ms)
    lines: dict[str, Points] = {
        "actual": [
            (float(point.unix_ms), point.value)
            for series in (arrived.series if arrived else ())
            for point in series.points
        ],
        "forecast acted on": [
            (float(one.made_unix_ms + one.horizon_ms), one.forecast) for one in old
        ],
        "median ahead": [(float(point.start_unix_ms), point.median) for point in ahead.points],
        f"{ahead.level:.0%} quantile ahead": [
            (float(point.start_unix_ms), point.quantile) for point in ahead.points
        ],
    }
    counts: dict[str, Points] = {
        "wanted": [(float(one.made_unix_ms), float(one.wanted)) for one in old],
        "there": [(float(one.made_unix_ms), float(one.current)) for one in old],
    }
    word = "the reactive rule decides" if ahead.fallen_back else "the forecast decides"
    return [
        Chart(f"{pool}: work, actual and forecast ({word})", charts.over_time(lines, "work")),
        Chart(
            f"{pool}: instances", charts.over_time(counts, "instances", steps=("wanted", "there"))
        ),
    ]
