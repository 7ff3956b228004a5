"""Whether a request's own bytes may go to the provider, and how they look there. Pure.

The bytes go where the caller speaks the upstream's wire and nothing else is to be said than they
say. What is said here in the operator's name is replaced or inserted at its place: the model's
name, the name of the length as this server has it, a length that limits have set, and that a stream
tells its usage. No other byte is touched. Everything else goes the way of translation, with the
reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.json_places import (
    Edit,
    Placed,
    edited,
    placed_fields,
    put_first,
    quoted,
)
from penstock.inference_upstream.protocols.request_fields import MULTIPLYING
from penstock.inference_upstream.protocols.wire import Target
from penstock.inference_upstream.switches import Switches
from penstock.service.purity import pure
from penstock.tasks.wire_request import headers_sent_on

LENGTHS: Mapping[pb.Wire, Sequence[str]] = {
    pb.WIRE_OPENAI_CHAT: ("max_completion_tokens", "max_tokens"),
    pb.WIRE_ANTHROPIC_MESSAGES: ("max_tokens",),
}
"""Names of the largest answer, by wire."""
SEVERAL = MULTIPLYING - {"n", "stream"}
OPTIONS, USAGE = "stream_options", "include_usage"
TELLING = '{"include_usage":true}'


@dataclass(frozen=True)
class AsSent:
    """The request's own bytes, for the provider."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    """Those of the protocol, by names in lower case."""
    hides_usage: bool = False
    """Whether the stream tells its usage for us only: its caller has not asked for it."""


@dataclass(frozen=True)
class Translated:
    """The translated task is sent instead."""

    why: str


@pure
def passed_on(
    task: pb.GenerateTask, wire: pb.Wire, target: Target, *, stream: bool
) -> AsSent | Translated:
    """How a conversation goes to a provider.

    Args:
        wire: that of the upstream.
        stream: whether the answer is wanted as events.
    """
    asked = task.wire_request
    if asked.wire != wire:
        return Translated("another wire")
    try:
        text = asked.body.decode()
        fields = placed_fields(text)
    except (ValueError, RecursionError):
        return Translated("not one JSON object in UTF-8 that all readers read alike")
    values = {name: placed.value for name, placed in fields.items()}
    if why := _unlike(task, values, target.switches, stream=stream):
        return Translated(why)
    lengths = _length_edits(text, fields, wire, target.switches, task.max_tokens)
    if isinstance(lengths, Translated):
        return lengths
    model, usage = fields["model"], _usage_edits(text, fields, wire, target.switches, stream)
    edits = [*lengths, *usage]
    if model.value != target.model:
        edits.append((model.start, model.end, quoted(target.model)))
    return AsSent(edited(text, edits), headers_sent_on(asked), hides_usage=bool(usage))


def _unlike(
    task: pb.GenerateTask, values: Mapping[str, Any], switches: Switches, *, stream: bool
) -> str:
    """Why the body does not say what is to be sent; empty where it does."""
    if not isinstance(values.get("model"), str):
        return "no model"
    if bool(values.get("stream")) is not stream:
        return "another kind of answer"
    if values.get("n", 1) not in (1, None) or any(values.get(name) for name in SEVERAL):
        return "several answers"
    if why := _switched(values, switches):
        return why
    if task.wire_request.wire == pb.WIRE_OPENAI_CHAT:
        return _unlike_chat(values, switches)
    return ""


def _switched(values: Mapping[str, Any], switches: Switches) -> str:
    """Why the operator's switches change the body on any wire."""
    if not switches.same_wire:
        return "the operator has not switched it on"
    if switches.body:
        return "the operator adds fields"
    hidden = {*switches.omit, *(() if switches.temperature else ("temperature", "top_p"))}
    if left_out := hidden & values.keys():
        return f"the operator leaves out {min(left_out)}"
    return ""


def _unlike_chat(values: Mapping[str, Any], switches: Switches) -> str:
    """Why a body of Chat Completions is not what this server takes."""
    turns_as_they_are = (
        switches.system_turns == "anywhere"
        and switches.system_role == "system"
        and switches.empty_text
    )
    if not turns_as_they_are:
        return "the server takes turns of another form"
    unknown = {
        *(() if switches.json_object else ("response_format",)),
        *(() if switches.strict_schemas else ("response_format", "tools")),
        *(() if switches.parallel_tools else ("parallel_tool_calls",)),
        *(() if switches.reasoning == "reasoning_effort" else ("reasoning_effort",)),
        *(() if switches.stream_usage else (OPTIONS,)),
    }
    if named := unknown & values.keys():
        return f"the server has no {min(named)}"
    if not isinstance(values.get(OPTIONS), dict | None):
        return "stream_options is no object"
    choice = values.get("tool_choice")
    if not switches.allowed_tools and isinstance(choice, dict) and "allowed_tools" in choice:
        return "the server has no allowed_tools"
    return ""


def _length_edits(
    text: str,
    fields: Mapping[str, Placed],
    wire: pb.Wire,
    switches: Switches,
    max_tokens: int,
) -> list[Edit] | Translated:
    """The length by the name that the provider knows; one that limits have set in place of a null,
    else before the first field.
    """
    name = switches.length_parameter if wire == pb.WIRE_OPENAI_CHAT else "max_tokens"
    given = [each for each in LENGTHS[wire] if each in fields]
    if len(given) > 1:
        return Translated("two lengths")
    if not given:
        return [put_first(text, 0, name, str(max_tokens))] if max_tokens else []
    placed = fields[given[0]]
    if placed.value is not None and placed.value != max_tokens:
        return Translated("another length")
    edits = []
    if given[0] != name:
        edits.append((placed.name_start, placed.name_end, quoted(name)))
    if placed.value is None and max_tokens:
        edits.append((placed.start, placed.end, str(max_tokens)))
    return edits


def _usage_edits(
    text: str, fields: Mapping[str, Placed], wire: pb.Wire, switches: Switches, stream: bool
) -> list[Edit]:
    """What makes a stream tell what it costs; empty where it does so by itself."""
    if wire != pb.WIRE_OPENAI_CHAT or not stream or not switches.stream_usage:
        return []
    options = fields.get(OPTIONS)
    if options is None:
        return [put_first(text, 0, OPTIONS, TELLING)]
    if not options.value:
        return [(options.start, options.end, TELLING)]
    asked = placed_fields(text[options.start : options.end]).get(USAGE)
    if asked is None:
        return [put_first(text, options.start, USAGE, "true")]
    if asked.value is True:
        return []
    return [(options.start + asked.start, options.start + asked.end, "true")]
