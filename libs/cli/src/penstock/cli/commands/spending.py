"""`penstock limits` and `penstock usage`: the rules in force, and what tenants have used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import click
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.cli.options import Command, with_session
from penstock.cli.output import dollars, plain, table, to_json
from penstock.cli.session import Session
from rich.text import Text

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
ADMIN = pb.DESCRIPTOR.services_by_name["LimiterAdminService"]
TELEMETRY = telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"]
Usages = dict[str, pb.GetUsageResponse]
"""What each tenant has used, by organisation."""


@click.command(cls=Command)
@with_session
def limits(session: Session) -> None:
    """Show the rules in force; asks the limiter's operators' service."""
    rules: pb.ListRulesResponse = asyncio.run(_rules(session))
    shown = table("rule", "kind", "counts", "limit", "window", "for each", right=("limit",))
    for rule in rules.rules:
        limit = dollars(rule.limit) if rule.counts == "microusd" else f"{rule.limit:,}"
        name = f"{rule.name} (only counts)" if rule.shadow else rule.name
        shown.add_row(plain(name), rule.kind, rule.counts, limit, rule.window, rule.level)
    none = Text("no rule limits anybody", style="dim")
    session.output.show(shown if rules.rules else none, data=rules)


@click.command(cls=Command)
@click.option("--organisation", default="", help="whose usage; default: all who called lately")
@click.option("--team", default="", help="team of the organisation")
@click.option("--user", default="", help="user of the organisation")
@click.option("--model", default="", help="only rules that apply to this model")
@with_session
def usage(session: Session, organisation: str, team: str, user: str, model: str) -> None:
    """Show what tenants have used of each rule."""
    if (team or user) and not organisation:
        raise click.UsageError("--team and --user need --organisation")
    usages = asyncio.run(_usages(session, organisation, team, user, model))
    shown = table(
        "tenant",
        "rule",
        "used",
        "held",
        "limit",
        "left",
        "ends in",
        right=("used", "held", "limit", "left", "ends in"),
    )
    now_ms = time.time() * 1e3
    for tenant, answer in usages.items():
        for row in answer.rules:
            shown.add_row(plain(tenant), plain(row.rule), *usage_cells(row, now_ms))
    none = Text("nobody has called yet, or no rule limits them", style="dim")
    data = {"usage": {tenant: to_json(answer) for tenant, answer in usages.items()}}
    session.output.show(shown if shown.row_count else none, data=data)


def usage_cells(row: pb.RuleUsage, now_ms: float) -> Sequence[str]:
    """Used, held, limit, left and the time until the window ends, in the rule's own unit."""
    amounts = [_of(row, part) for part in (row.committed, row.held, row.limit)]
    used, held, limit = amounts
    show = dollars if row.limit.microusd else "{:,}".format
    ends_s = (row.window_ends_unix_ms - now_ms) / 1e3
    ends = duration(ends_s) if row.window_ends_unix_ms else "–"
    return [show(used), show(held), show(limit), show(max(0, limit - used - held)), ends]


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    left = max(0, round(seconds))
    for size, unit, smaller, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if left >= size:
            return f"{left // size} {unit} {left % size // smaller} {small_unit}"
    return f"{left} s"


def _of(row: pb.RuleUsage, amount: pb.Amount) -> int:
    """The amount in the unit in which the rule has its limit."""
    if row.limit.microusd:
        return amount.microusd
    return amount.tokens if row.limit.tokens else amount.requests


async def _rules(session: Session) -> pb.ListRulesResponse:
    async with session.peer(session.target.limiter_admin, ADMIN, operator=True) as peer:
        answer: pb.ListRulesResponse = await peer.call(
            "ListRules", pb.ListRulesRequest(), session.call()
        )
        return answer


async def _usages(session: Session, organisation: str, team: str, user: str, model: str) -> Usages:
    tenants = [organisation] if organisation else await _tenants(session)
    request = pb.GetUsageRequest(model=model)
    async with session.peer(session.target.limiter, LIMITER) as peer:
        answers = await asyncio.gather(
            *(peer.call("GetUsage", request, session.call(name, team, user)) for name in tenants)
        )
    return dict(zip(tenants, answers, strict=True))


async def _tenants(session: Session) -> list[str]:
    """Organisations that telemetry has seen lately, by what they paid."""
    request = telemetry_pb2.GetCostsRequest(by=telemetry_pb2.COST_BY_TENANT)
    async with session.peer(session.target.telemetry, TELEMETRY) as peer:
        costs = await peer.call("GetCosts", request, session.call())
    return [row.key for row in costs.rows if row.key]
