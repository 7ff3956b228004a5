"""`penstock runs`: agent runs with budgets; what they have spent, and who may go on."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

import click
from google.protobuf.message import Message
from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import router_pb2, runs_pb2
from penstock.cli.commands.keys import Span
from penstock.cli.options import Command, Group, with_session
from penstock.cli.output import dollars, plain, table
from penstock.cli.session import ANSWER_TIMEOUT_S, Session
from rich.table import Table
from rich.text import Text

STATE, COST = "RUN_STATE_", "RUN_COST_KIND_"
NO_LIMIT = "–"


class Dollars(click.ParamType[int]):
    """An amount such as `0.25`, in micro-dollars."""

    name = "DOLLARS"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """See click."""
        try:
            microusd = Decimal(str(value)) * 10**6
        except InvalidOperation:
            microusd = Decimal(-1)
        if not (microusd.is_finite() and microusd >= 0 and microusd == int(microusd)):
            self.fail(f"{value!r} is no amount of dollars, such as 0.25", param, ctx)
        return int(microusd)


def with_limits(command: Any) -> Any:
    """Add the options of a run's limits."""
    for option in (
        click.option("--time", "time_ms", type=Span(), default=None, help="from its start"),
        click.option("--calls", type=click.IntRange(min=0), default=None, help="most calls"),
        click.option("--tokens", type=click.IntRange(min=0), default=None, help="most tokens"),
        click.option("--cost", "microusd", type=Dollars(), default=None, help="most dollars"),
    ):
        command = option(command)
    return command


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def runs(context: click.Context) -> None:
    """List agent runs with budgets; start, raise, pause, end or cancel one."""
    if context.invoked_subcommand is None:
        context.invoke(list_runs)


@runs.command("list", cls=Command)
@with_session
def list_runs(session: Session) -> None:
    """List the runs that your key has started, the last used first."""
    answer = _asked(session, "ListRuns", runs_pb2.ListRunsRequest())
    none = Text("your key has started no run", style="dim")
    session.output.show(_table(answer.runs) if answer.runs else none, data=answer)


@runs.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@with_session
def show(session: Session, run_id: str) -> None:
    """Show a run and those below it."""
    answer = _asked(session, "GetRun", runs_pb2.GetRunRequest(run_id=run_id))
    total = answer.total_spent
    spent = f"{total.calls:,} calls, {total.tokens:,} tokens, {dollars(total.microusd)} in all"
    session.output.show(_table(answer.runs), Text(spent, style="dim"), data=answer)


@runs.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@with_session
def cost(session: Session, run_id: str) -> None:
    """Show what a run and those below it have cost, by run, step and what it was paid for."""
    request = runs_pb2.GetRunCostRequest(run_id=run_id)
    answer: runs_pb2.GetRunCostResponse = _asked(session, "GetRunCost", request)
    total = answer.total
    text = f"{total.calls:,} calls, {total.tokens:,} tokens, {dollars(total.microusd)} in all"
    if answer.estimated_microusd:
        text += f", {dollars(answer.estimated_microusd)} of it by estimates (~)"
    session.output.show(_cost_table(answer), Text(text, style="dim"), data=answer)


@runs.command(cls=Command)
@click.argument("name", default="")
@click.option("--parent", default="", help="run that opens it and gives it a share")
@click.option("--reserve", type=Dollars(), default="0", help="kept for its final answer")
@with_limits
@with_session
def start(session: Session, name: str, parent: str, reserve: int, **limits: int | None) -> None:
    """Start a run and print its id; NAME is for people."""
    request = runs_pb2.StartRunRequest(name=name, parent_run_id=parent, limits=_limits(**limits))
    request.reserve.microusd = reserve
    answer = _asked(session, "StartRun", request)
    session.output.show(Text(answer.run.id), data=answer)


@runs.command("raise", cls=Command)
@click.argument("run_id", metavar="RUN")
@with_limits
@with_session
def raise_(session: Session, run_id: str, **limits: int | None) -> None:
    """Raise a run's limits to what is given, and let it go on."""
    request = runs_pb2.RaiseRunRequest(run_id=run_id, limits=_limits(**limits))
    _show_changed(session, _asked(session, "RaiseRun", request))


@runs.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@click.option("--reason", default="", help="why, for those who look at it")
@with_session
def pause(session: Session, run_id: str, reason: str) -> None:
    """Pause a run and those below it; calls in flight end as usual."""
    request = runs_pb2.PauseRunRequest(run_id=run_id, reason=reason)
    _show_changed(session, _asked(session, "PauseRun", request))


@runs.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@with_session
def end(session: Session, run_id: str) -> None:
    """End a run and those below it; a child's rest goes back to its parent."""
    _show_changed(session, _asked(session, "EndRun", runs_pb2.EndRunRequest(run_id=run_id)))


@runs.command(cls=Command)
@click.argument("run_id", metavar="RUN")
@with_session
def cancel(session: Session, run_id: str) -> None:
    """Cancel a run and those below it, with their calls in flight and their jobs."""
    answer = _asked(session, "CancelRun", router_pb2.CancelRunRequest(run_id=run_id))
    text = f"{answer.cancelled_calls} calls and {answer.cancelled_jobs} jobs were cancelled"
    session.output.show(Text(text), data=answer)


def _asked(session: Session, method: str, request: Message) -> Any:
    with session.client() as client:
        return client.call(method, request, session.run(ANSWER_TIMEOUT_S))


def _show_changed(session: Session, answer: Any) -> None:
    session.output.show(_table([answer.run]), data=answer)


def _limits(**limits: int | None) -> run_pb2.RunLimits:
    return run_pb2.RunLimits(**{name: value for name, value in limits.items() if value is not None})


def _table(shown: Iterable[run_pb2.Run]) -> Table:
    columns = ("run", "name", "state", "calls", "tokens", "cost", "held", "children")
    rows = table(*columns, right=columns[3:], whole=("run",))
    for run in shown:
        limits = run.limits
        rows.add_row(
            plain(run.id),
            plain(run.name),
            plain(_state(run)),
            _of(f"{run.spent.calls:,}", f"{limits.calls:,}", limits.HasField("calls")),
            _of(f"{run.spent.tokens:,}", f"{limits.tokens:,}", limits.HasField("tokens")),
            _of(dollars(run.spent.microusd), dollars(limits.microusd), limits.HasField("microusd")),
            dollars(run.held.microusd),
            dollars(run.shared.microusd),
        )
    return rows


def _cost_table(answer: runs_pb2.GetRunCostResponse) -> Table:
    """The rows of each run; its name where it has one, and else its id."""
    columns = ("run", "step", "for", "model", "calls", "tokens", "cost")
    names = {run.id: run.name or run.id for run in answer.runs}
    rows = table(*columns, right=columns[4:])
    for row in answer.costs:
        kind = run_pb2.RunCostKind.Name(row.kind).removeprefix(COST).lower().replace("_", " ")
        mark = "~" if row.estimated else ""
        rows.add_row(
            *map(plain, (names[row.run_id], row.step, kind, row.model)),
            f"{row.amount.calls:,}",
            f"{row.amount.tokens:,}",
            mark + dollars(row.amount.microusd),
        )
    return rows


def _of(spent: str, limit: str, is_limited: bool) -> str:
    return f"{spent} of {limit if is_limited else NO_LIMIT}"


def _state(run: run_pb2.Run) -> str:
    """The state, and who has brought it about."""
    state = run_pb2.RunState.Name(run.state).removeprefix(STATE).lower()
    by = f" by {run.changed_by}" if run.changed_by else ""
    return f"{state}{by}: {run.reason}" if run.reason else state + by
