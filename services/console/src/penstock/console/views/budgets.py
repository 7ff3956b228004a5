"""Budgets: what is left of each, and when it runs out at the present rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.console.drawing import charts
from penstock.console.drawing.blocks import Block, Cell, Chart, Note, Row, Rows
from penstock.console.drawing.format import Query, clock_time, dollars
from penstock.console.service_clients import ServiceClients
from penstock.console.views.metric_charts import metric_charts
from penstock.console.views.unavailable import unavailable

MAX_TENANTS = 6
STEP_S = 10.0
"""Length of the ledger's steps."""

RATE_OVER_S = 600.0
"""The present rate is that of the last ten minutes."""

FORECAST_S = 3600.0
FORECAST = "forecast"
NEARLY_USED_UP = 0.9
UNITS = ("microusd", "tokens", "requests")

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Spending:
    """What a tenant spends."""

    tenant: str
    steps: Sequence[tuple[float, int]]
    """(Unix milliseconds, micro-dollars paid in that step of the ledger)."""
    microusd_per_s: float


@dataclass
class _Budgets:
    """The view's rows and lines, tenant by tenant."""

    lines: dict[str, Points] = field(default_factory=dict)
    rules: list[Row] = field(default_factory=list)
    tenants: list[Row] = field(default_factory=list)


async def show_budgets(clients: ServiceClients, _: Query) -> Sequence[Block]:
    """When do we run out?"""
    request = pb.GetCostsRequest(by=pb.COST_BY_TENANT, limit=MAX_TENANTS)
    costs = await clients.call("telemetry", "GetCosts", request, pb.GetCostsResponse)
    if costs is None:
        return unavailable(clients, "telemetry")
    budgets = _Budgets()
    for row in costs.rows:
        await _add_tenant(clients, row, budgets)
    limiter_note = [] if clients.failure("limiter") is None else unavailable(clients, "limiter")
    columns = ("tenant", "rule", "used", "held", "limit", "window ends", "at this rate")
    return [
        *limiter_note,
        _burn_down_chart(budgets.lines),
        Rows("Limits", columns, budgets.rules, "no rule limits anybody who has called so far"),
        Rows(
            "Tenants",
            ("tenant", "calls", "spent", "rate"),
            budgets.tenants,
            "nobody has spent anything yet",
        ),
        *await metric_charts(clients, "penstock.limiter", "Limiter"),
    ]


async def _add_tenant(clients: ServiceClients, row: pb.CostRow, budgets: _Budgets) -> None:
    tenant = row.key
    savings, usage = await asyncio.gather(
        clients.call(
            "telemetry", "GetSavings", pb.GetSavingsRequest(tenant=tenant), pb.GetSavingsResponse
        ),
        clients.call(
            "limiter",
            "GetUsage",
            limiter_pb2.GetUsageRequest(),
            limiter_pb2.GetUsageResponse,
            tenant,
        ),
    )
    points = savings.points if savings else ()
    steps = [(float(point.unix_ms), point.paid_microusd) for point in points]
    spending = _Spending(tenant, steps, microusd_per_s(steps))
    hourly = dollars(int(spending.microusd_per_s * 3600))
    budgets.tenants.append(
        [tenant or "—", f"{row.calls:,}", dollars(row.paid_microusd), f"{hourly} an hour"]
    )
    for rule in usage.rules if usage else ():
        budgets.rules.append(_rule_row(rule, spending))
        if rule.limit.microusd:
            budgets.lines |= _burn_down(rule, spending, time.time() * 1e3)


def microusd_per_s(steps: Sequence[tuple[float, int]]) -> float:
    """The rate of the last ten minutes of steps, which are (Unix milliseconds, micro-dollars)."""
    if not steps:
        return 0.0
    since_ms = steps[-1][0] - RATE_OVER_S * 1e3
    recent = [(unix_ms, microusd) for unix_ms, microusd in steps if unix_ms >= since_ms]
    length_s = (recent[-1][0] - recent[0][0]) / 1e3 + STEP_S
    return sum(microusd for _, microusd in recent) / length_s


def _burn_down_chart(lines: dict[str, Points]) -> Block:
    if not lines:
        return Note("no budget is in dollars")
    title = "Left of each budget, and at the rate of the last ten minutes"
    return Chart(title, charts.over_time(lines, "$", dashed_suffix=FORECAST))


def _burn_down(
    rule: limiter_pb2.RuleUsage, spending: _Spending, now_ms: float
) -> dict[str, Points]:
    """Two lines: what was left of a budget at each step, counted back from what is left now; and a
    straight forecast until nothing is left, for an hour at most.
    """
    left = rule.limit.microusd - rule.committed.microusd - rule.held.microusd
    past: Points = [(now_ms, left / 1e6)]
    before = left
    for unix_ms, microusd in reversed(spending.steps):
        past.append((unix_ms, before / 1e6))
        before += microusd
    rate = spending.microusd_per_s
    ahead_s = min(left / rate, FORECAST_S) if rate > 0 else FORECAST_S
    then = max(0.0, left - rate * ahead_s)
    forecast = [(now_ms, left / 1e6), (now_ms + ahead_s * 1e3, then / 1e6)]
    name = f"{spending.tenant} {rule.rule}"
    return {name: past[::-1], f"{name} {FORECAST}": forecast}


def _rule_row(rule: limiter_pb2.RuleUsage, spending: _Spending) -> Row:
    """One rule for one tenant, in the unit that the rule counts."""
    unit = next((name for name in UNITS if getattr(rule.limit, name)), "requests")
    limit = int(getattr(rule.limit, unit))
    used = int(getattr(rule.committed, unit))
    held = int(getattr(rule.held, unit))
    share = (used + held) / limit if limit else 0.0
    ends = clock_time(rule.window_ends_unix_ms) if rule.window_ends_unix_ms else "—"
    runs_out = "—"
    if unit == "microusd" and spending.microusd_per_s > 0:
        hours = (limit - used - held) / spending.microusd_per_s / 3600
        runs_out = f"runs out in {hours:,.1f} h"
    return [
        spending.tenant,
        rule.rule,
        Cell(_amount(used, unit), share=share, bad=share > NEARLY_USED_UP),
        _amount(held, unit),
        _amount(limit, unit),
        ends,
        runs_out,
    ]


def _amount(amount: int, unit: str) -> str:
    return dollars(amount) if unit == "microusd" else f"{amount:,} {unit}"
