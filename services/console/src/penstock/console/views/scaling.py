"""Scaling: demand, each pool's forecast and instances, and the scaler's decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.api.scaler.v1 import scaler_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Chart, Note, Row, Rows
from penstock.console.drawing.format import Query, clock_time
from penstock.console.service_clients import ServiceClients
from penstock.console.views.metric_charts import metric_charts
from penstock.console.views.unavailable import unavailable

WORK_METRIC = "penstock.scaler.work."
"""Followed by the name of a pool."""

STEP_S = 10
"""Length of the ledger's steps."""

MAX_DECISIONS = 200
DECISIONS_SHOWN = 30
CALLS = "calls a second"

Points = list[tuple[float, float]]


async def show_scaling(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """Did scaling act in time?"""
    savings, response = await asyncio.gather(
        clients.call("telemetry", "GetSavings", pb.GetSavingsRequest(), pb.GetSavingsResponse),
        clients.call(
            "scaler",
            "ListDecisions",
            scaler_pb2.ListDecisionsRequest(limit=MAX_DECISIONS),
            scaler_pb2.ListDecisionsResponse,
        ),
    )
    if savings is None:
        return unavailable(clients, "telemetry")
    blocks: list[Block] = [_demand_chart(savings)]
    if response is None:
        return [*blocks, *unavailable(clients, "scaler")]
    by_pool: dict[str, list[scaler_pb2.Decision]] = {}
    for decision in response.decisions:
        by_pool.setdefault(decision.pool, []).append(decision)
    for pool, decisions in by_pool.items():
        blocks += await _pool_charts(clients, pool, decisions)
    columns = ("when", "pool", "instances", "demand alone", "forecast work", "because")
    rows = [_decision_row(decision) for decision in response.decisions[:DECISIONS_SHOWN]]
    blocks.append(
        Rows("Decisions, newest first", columns, rows, "the scaler has decided nothing yet")
    )
    return [*blocks, *await metric_charts(clients, "penstock.scaler", "Scaler")]


def _demand_chart(savings: pb.GetSavingsResponse) -> Chart:
    """Calls a second; the last step is left out, because it is not over yet."""
    points = savings.points[:-1] or savings.points
    calls = [(float(point.unix_ms), point.calls / STEP_S) for point in points]
    return Chart("Demand", charts.over_time({CALLS: calls}, "calls/s", steps=(CALLS,)))


def _decision_row(decision: scaler_pb2.Decision) -> Row:
    return [
        clock_time(decision.made_unix_ms),
        decision.pool,
        f"{decision.current} → {decision.wanted}",
        str(decision.reactive_floor),
        f"{decision.forecast:.1f} at {decision.level:.0%}",
        decision.reason,
    ]


async def _pool_charts(
    clients: ServiceClients, pool: str, decisions: Sequence[scaler_pb2.Decision]
) -> list[Block]:
    """A pool's work beside the forecasts that were acted on, and its instances."""
    forecast, work = await asyncio.gather(
        clients.call(
            "scaler",
            "GetForecast",
            scaler_pb2.GetForecastRequest(pool=pool),
            scaler_pb2.GetForecastResponse,
        ),
        clients.call(
            "telemetry",
            "GetMetrics",
            pb.GetMetricsRequest(name=f"{WORK_METRIC}{pool}"),
            pb.GetMetricsResponse,
        ),
    )
    if forecast is None:
        reason = clients.failure("scaler")
        return [Note(f"the scaler has no forecast for {pool}: {reason}")]
    oldest_first = sorted(decisions, key=lambda decision: decision.made_unix_ms)
    return [
        _work_chart(pool, forecast, work, oldest_first),
        _instances_chart(pool, oldest_first),
    ]


def _work_chart(
    pool: str,
    forecast: scaler_pb2.GetForecastResponse,
    work: pb.GetMetricsResponse | None,
    decisions: Sequence[scaler_pb2.Decision],
) -> Chart:
    actual = [
        (float(point.unix_ms), point.value)
        for series in (work.series if work else ())
        for point in series.points
    ]
    acted_on = [
        (float(decision.made_unix_ms + decision.horizon_ms), decision.forecast)
        for decision in decisions
    ]
    ahead = forecast.points
    lines: dict[str, Points] = {
        "actual": actual,
        "forecast acted on": acted_on,
        "median ahead": [(float(point.start_unix_ms), point.median) for point in ahead],
        f"{forecast.level:.0%} quantile ahead": [
            (float(point.start_unix_ms), point.quantile) for point in ahead
        ],
    }
    rule = "the reactive rule decides" if forecast.fallen_back else "the forecast decides"
    title = f"{pool}: work, actual and forecast ({rule})"
    return Chart(title, charts.over_time(lines, "work"))


def _instances_chart(pool: str, decisions: Sequence[scaler_pb2.Decision]) -> Chart:
    lines: dict[str, Points] = {
        "wanted": [(float(row.made_unix_ms), float(row.wanted)) for row in decisions],
        "running": [(float(row.made_unix_ms), float(row.current)) for row in decisions],
    }
    options = charts.over_time(lines, "instances", steps=tuple(lines))
    return Chart(f"{pool}: instances", options)
