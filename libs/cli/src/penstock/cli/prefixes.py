"""Prompts' prefixes as people read them: one prompt in words, a conversation as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from penstock.api.common.v1 import prefix_pb2
from penstock.api.router.v1 import prefixes_pb2 as pb
from penstock.cli.output import dollars, plain, table
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def loss_line(loss: prefix_pb2.PrefixLoss) -> str:
    """A loss in one line of a receipt."""
    cost = f", {dollars(loss.lost_microusd)}" if loss.lost_microusd else ""
    return (
        f"prefix lost: {cause(loss.outcome, loss.prefix_break)}, {loss.lost_tokens:,} tokens{cost}"
    )


def cause(outcome: prefix_pb2.PrefixOutcome, broken: prefix_pb2.PrefixBreak) -> str:
    """What became of a prefix, such as `evicted` or `clock at turns[0] line 2`."""
    if outcome != prefix_pb2.PREFIX_OUTCOME_BROKEN:
        return _name(prefix_pb2.PrefixOutcome.Name(outcome), "PREFIX_OUTCOME_")
    line = f" line {broken.line}" if broken.line else ""
    return f"{_kind(broken)} at {broken.place}{line}"


def shown_prompt(prompt: pb.PromptPrefix) -> RenderableType:
    """One prompt: its tokens, its account in words, and since when it breaks."""
    text = Text.assemble((prompt.request_id, "bold"), f" · {prompt.model} at {prompt.instance_id}")
    for line in _lines(prompt):
        text.append(f"\n{line}")
    return text


def shown_prompts(prompts: Sequence[pb.PromptPrefix]) -> Table:
    """The prompts of a conversation, one a row."""
    shown = table(
        "sent",
        "request",
        "read",
        "lost",
        "cost",
        "prefix",
        right=("read", "lost", "cost"),
    )
    for prompt in prompts:
        shown.add_row(
            _time(prompt.sent_unix_ms),
            plain(prompt.request_id),
            f"{prompt.cached_tokens:,}",
            f"{prompt.lost_tokens:,}",
            dollars(prompt.lost_microusd) if prompt.lost_microusd else "–",
            plain(cause(prompt.outcome, prompt.prefix_break)),
            style="yellow" if prompt.lost_tokens else "",
        )
    return shown


def _lines(prompt: pb.PromptPrefix) -> Iterator[str]:
    yield (
        f"sent {_time(prompt.sent_unix_ms)}, {prompt.input_tokens:,} tokens, "
        f"{prompt.cached_tokens:,} of them read from the provider's cache"
    )
    yield prompt.text
    if prompt.breaks_in_row > 1:
        yield f"Since {_time(prompt.since_unix_ms)}, request {prompt.since_request_id}."
    if prompt.previous_request_id:
        yield f"Compared with request {prompt.previous_request_id}."


def _kind(broken: prefix_pb2.PrefixBreak) -> str:
    return _name(prefix_pb2.PrefixBreakKind.Name(broken.kind), "PREFIX_BREAK_KIND_")


def _name(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1e3).strftime("%H:%M:%S")
