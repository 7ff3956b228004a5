"""`penstock keys`: API keys of the router's store, for operators."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.router.v1 import keys_pb2 as pb
from penstock.cli.commands.spending import ADMIN, duration
from penstock.cli.options import Command, Group, with_session
from penstock.cli.output import plain, table, to_json
from penstock.cli.session import Session
from penstock.rpc.call import PRIORITIES
from rich.text import Text

KEYS = pb.DESCRIPTOR.services_by_name["KeyService"]
PREFIX = "TASK_KIND_"
KINDS = {
    name.removeprefix(PREFIX).lower(): number
    for name, number in inference_pb2.TaskKind.items()
    if number
}
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ONCE = "shown once; it is kept nowhere"


class Span(click.ParamType[int]):
    """A time span such as `90d` or `12h`, in milliseconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """See click."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if unit not in UNITS_S or not number.isdecimal():
            self.fail(f"{value!r} is no time span; write a number and s, m, h or d", param, ctx)
        return int(number) * UNITS_S[unit] * 1000


class Budget(click.ParamType[tuple[str, int]]):
    """`RULE=LIMIT`: a limit of the key under a rule of level `key`."""

    name = "RULE=LIMIT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        """See click."""
        rule, _, limit = str(value).partition("=")
        if not rule or not limit.isdecimal():
            self.fail(f"{value!r} is no RULE=LIMIT", param, ctx)
        return rule, int(limit)


@click.group(cls=Group)
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command(cls=Command)
@click.option("--organisation", required=True, help="organisation that pays")
@click.option("--team", default="", help="team of the organisation")
@click.option("--user", default="", help="user of the organisation")
@click.option("--tag", "tags", multiple=True, help="tag that limits may match; may be repeated")
@click.option("--model", "models", multiple=True, help="model that it may use; default: all")
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(KINDS)), help="default: all")
@click.option("--ceiling", type=click.Choice(list(PRIORITIES)), default="normal", show_default=True)
@click.option("--expires-in", "ttl_ms", type=Span(), default="0s", help="default: never")
@click.option("--budget", "budgets", type=Budget(), multiple=True, help="its limit under a rule")
@click.option("--note", default="", help="what it is for")
@with_session
def new(
    session: Session,
    ttl_ms: int,
    budgets: tuple[tuple[str, int], ...],
    note: str,
    **scope: Any,
) -> None:
    """Make a key and print it: this once only."""
    request = pb.CreateKeyRequest(scope=_scope(**scope), note=note, ttl_ms=ttl_ms)
    made: pb.CreateKeyResponse = asyncio.run(_made(session, request, budgets))
    session.output.show(Text(made.secret), Text(f"{made.key.id}: {ONCE}", style="dim"), data=made)


@keys.command("list", cls=Command)
@click.option("--organisation", default="", help="only of this organisation")
@click.option("--ended", is_flag=True, help="also those that are revoked or expired")
@with_session
def list_(session: Session, organisation: str, ended: bool) -> None:
    """List keys, never their texts."""
    request = pb.ListKeysRequest(organisation=organisation, include_ended=ended)
    answer: pb.ListKeysResponse = asyncio.run(_call(session, "ListKeys", request))
    columns = ("id", "organisation", "team", "user", "ceiling", "models", "tasks", "state", "note")
    shown = table(*columns, whole=("id",))
    names = {number: name for name, number in PRIORITIES.items()}
    for key in answer.keys:
        scope = key.scope
        kinds = [name for name, number in KINDS.items() if number in scope.tasks]
        shown.add_row(
            key.id,
            *(plain(text) for text in (scope.organisation, scope.team, scope.user)),
            names[scope.priority_ceiling],
            plain(", ".join(scope.models) or "all"),
            ", ".join(kinds) or "all",
            state(key, time.time() * 1e3),
            plain(key.note),
        )
    none = Text("there are no keys in the store", style="dim")
    session.output.show(shown if answer.keys else none, data=answer)


@keys.command(cls=Command)
@click.argument("key_id")
@click.option(
    "--overlap",
    "overlap_ms",
    type=Span(),
    default="24h",
    show_default=True,
    help="how long the earlier text is accepted",
)
@click.option("--reason", default="", help="why, for the audit log")
@with_session
def rotate(session: Session, key_id: str, overlap_ms: int, reason: str) -> None:
    """Make another text for a key and print it: this once only."""
    request = pb.RotateKeyRequest(id=key_id, overlap_ms=overlap_ms, reason=reason)
    made: pb.RotateKeyResponse = asyncio.run(_call(session, "RotateKey", request))
    session.output.show(Text(made.secret), Text(f"{made.key.id}: {ONCE}", style="dim"), data=made)


@keys.command(cls=Command)
@click.argument("key_id")
@click.option("--reason", default="", help="why, for the audit log")
@with_session
def revoke(session: Session, key_id: str, reason: str) -> None:
    """End a key at every router; its open calls end too."""
    request = pb.RevokeKeyRequest(id=key_id, reason=reason)
    ended: pb.RevokeKeyResponse = asyncio.run(_call(session, "RevokeKey", request))
    session.output.show(Text(f"{ended.key.id} is revoked"), data=ended)


@keys.command(cls=Command)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@with_session
def audit(session: Session, limit: int) -> None:
    """List who changed which key, the latest first."""
    request = pb.ListAuditRequest(limit=limit)
    answer: pb.ListAuditResponse = asyncio.run(_call(session, "ListAudit", request))
    shown = table("when", "operator", "action", "key", "organisation", "reason", whole=("key",))
    for row in answer.changes:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.at_unix_ms / 1e3))
        texts = (row.operator, row.action, row.key_id, row.organisation, row.reason)
        shown.add_row(at, *(plain(text) for text in texts))
    session.output.show(shown, data={"changes": [to_json(row) for row in answer.changes]})


def state(key: pb.Key, now_ms: float) -> str:
    """Whether a key is in force, and until when."""
    if key.revoked_unix_ms:
        return "revoked"
    if not key.expires_unix_ms:
        return "in force"
    left_s = (key.expires_unix_ms - now_ms) / 1e3
    return f"ends in {duration(left_s)}" if left_s > 0 else "expired"


def _scope(
    tasks: tuple[str, ...], ceiling: str, team: str, user: str, **fields: Any
) -> pb.KeyScope:
    numbers: Any = [KINDS[name] for name in tasks]
    priority = PRIORITIES[ceiling]
    return pb.KeyScope(tasks=numbers, priority_ceiling=priority, team=team, user=user, **fields)


async def _call(session: Session, method: str, request: Any) -> Any:
    async with session.peer(session.target.router_keys, KEYS, operator=True) as peer:
        return await peer.call(method, request, session.call())


async def _made(
    session: Session, request: pb.CreateKeyRequest, budgets: tuple[tuple[str, int], ...]
) -> Any:
    """Make a key; where its limits cannot be set it is revoked again."""
    made = await _call(session, "CreateKey", request)
    try:
        await _set_budgets(session, made.key, budgets)
    except BaseException:
        revocation = pb.RevokeKeyRequest(id=made.key.id, reason="its limits could not be set")
        await _call(session, "RevokeKey", revocation)
        raise
    return made


async def _set_budgets(session: Session, key: pb.Key, budgets: tuple[tuple[str, int], ...]) -> None:
    if not budgets:
        return
    async with session.peer(session.target.limiter_admin, ADMIN, operator=True) as peer:
        for rule, limit in budgets:
            subject = limiter_pb2.Subject(
                organisation=key.scope.organisation, rule=rule, value=key.id
            )
            request = limiter_pb2.SetLimitRequest(
                subject=subject, limit=limit, reason=f"budget of the key {key.id}"
            )
            await peer.call("SetLimit", request, session.call())
