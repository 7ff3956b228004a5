"""`penstock instances` and `penstock explain`: who serves, and why an instance was chosen."""

from __future__ import annotations

import math

import click
from penstock.api.router.v1 import prefixes_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.cli.options import Command, with_session
from penstock.cli.output import plain, table
from penstock.cli.prefixes import shown_prompt, shown_prompts
from penstock.cli.session import ANSWER_TIMEOUT_S, Session
from rich.text import Text

STATE = "INSTANCE_STATE_"


@click.command(cls=Command)
@click.option("--model", default="", help="only instances of this model")
@with_session
def instances(session: Session, model: str) -> None:
    """Show every instance with its models, load and score; the best comes first."""
    request = pb.GetScoreboardRequest(model=model)
    with session.client() as client:
        board: pb.GetScoreboardResponse = client.call(
            "GetScoreboard", request, session.run(ANSWER_TIMEOUT_S)
        )
    shown = table(
        "instance",
        "state",
        "models",
        "busy",
        "score ms",
        "picks (failed)",
        right=("busy", "score ms", "picks (failed)"),
        whole=("instance",),
    )
    for row in board.rows:
        shown.add_row(
            plain(row.instance.id),
            _state(row.candidate),
            plain(", ".join(served.name for served in row.instance.models)),
            f"{row.in_flight}/{row.instance.concurrency or 1}",
            _score(row.candidate),
            f"{row.picks:,} ({row.failures:,})",
        )
    note = Text(f"strategy {board.strategy}", style="dim")
    empty = Text("no instance has registered; start one, or wait for it", style="yellow")
    session.output.show(*([shown, note] if board.rows else [empty]), data=board)


@click.command(cls=Command)
@click.argument("request", default="")
@click.option("--prefix", is_flag=True, help="what became of its prefix at the provider's cache")
@click.option("--run", "conversation", default="", help="the latest prompts of a run or session")
@with_session
def explain(session: Session, request: str, prefix: bool, conversation: str) -> None:
    """Explain why a call went where it did, or with --prefix what its prompt lost of the provider's
    prefix cache; REQUEST is the request id of its receipt.
    """
    if conversation and not prefix:
        raise click.UsageError("--run needs --prefix")
    if bool(request) == bool(conversation):
        raise click.UsageError("give a REQUEST, or --prefix with --run")
    if prefix:
        _explain_prefix(session, request, conversation)
    else:
        _explain_route(session, request)


def _explain_prefix(session: Session, request: str, conversation: str) -> None:
    asked = prefixes_pb2.ExplainPrefixRequest(request_id=request, conversation=conversation)
    with session.client() as client:
        answer: prefixes_pb2.ExplainPrefixResponse = client.call(
            "ExplainPrefix", asked, session.run(ANSWER_TIMEOUT_S)
        )
    shown = shown_prompts(answer.prompts) if conversation else shown_prompt(answer.prompts[0])
    session.output.show(shown, data=answer)


def _explain_route(session: Session, request: str) -> None:
    with session.client() as client:
        answer: pb.ExplainRouteResponse = client.call(
            "ExplainRoute",
            pb.ExplainRouteRequest(request_id=request),
            session.run(ANSWER_TIMEOUT_S),
        )
    picked = Text.assemble(
        (answer.instance_id or "no instance", "bold"),
        f" was chosen by {answer.strategy}: {answer.branch}, for about "
        f"{answer.estimated_tokens:,} tokens",
    )
    shown = table(
        "instance", "score ms", "state", "inputs", right=("score ms",), whole=("instance",)
    )
    for candidate in answer.candidates:
        inputs = ", ".join(f"{signal.name} {signal.value:.3g}" for signal in candidate.signals)
        left_out = candidate.filtered_reason
        shown.add_row(
            plain(candidate.instance_id),
            _score(candidate),
            _state(candidate),
            Text(f"left out: {left_out}", style="yellow") if left_out else plain(inputs),
            style="bold" if candidate.instance_id == answer.instance_id else "",
        )
    session.output.show(picked, shown, data=answer)


def _state(candidate: pb.Candidate) -> str:
    return pb.InstanceState.Name(candidate.state).removeprefix(STATE).lower()


def _score(candidate: pb.Candidate) -> str:
    """The score in milliseconds; a dash for one that is not finite."""
    return f"{candidate.score * 1e3:.2f}" if math.isfinite(candidate.score) else "–"
