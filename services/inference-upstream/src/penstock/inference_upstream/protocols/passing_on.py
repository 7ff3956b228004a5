"""Whether a request's own bytes may go to the provider, and how they look there. Pure.

The bytes go where the caller speaks the upstream's wire and nothing else is to be said than they
say. Only the model's name is replaced, and a length is inserted where limits have set one; no other
byte is touched. Everything else goes the way of translation, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.api.inference.v1 import inference_pb2 as pb
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
BLANK = re.compile(r"[ \t\n\r]*")
SEVERAL = MULTIPLYING - {"n", "stream"}


@dataclass(frozen=True)
class AsSent:
    """The request's own bytes, for the provider."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    """Those of the protocol, by names in lower case."""


@dataclass(frozen=True)
class Translated:
    """The translated task is sent instead."""

    why: str


class Placed(NamedTuple):
    """A value of an object, and where it stands in the object's text."""

    value: Any
    start: int
    end: int


class _Ambiguous(ValueError):
    """Readers of JSON differ in what this text says."""


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
    edits: list[tuple[int, int, str]] = []
    model = fields["model"]
    if model.value != target.model:
        edits.append((model.start, model.end, _text(target.model)))
    length, given = _length_of(wire, values, target.switches)
    if given is None and task.max_tokens:
        edits.append(_length_edit(text, fields.get(length), length, task.max_tokens))
    elif given is not None and given != task.max_tokens:
        return Translated("another length")
    return AsSent(_edited(text, edits), headers_sent_on(asked))


@pure
def placed_fields(text: str) -> dict[str, Placed]:
    """The fields of a JSON object with their places.

    Raises:
        ValueError: the text is no JSON object, or an object in it has a field twice.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    fields: dict[str, Placed] = {}
    at, mark = _skip(text, at + 1), ","
    while mark == ",":
        if text[at : at + 1] != '"':
            raise ValueError("no name")
        name, at = decoder.raw_decode(text, at)
        at = _expect(text, at, ":")
        value, end = decoder.raw_decode(text, at)
        if name in fields:
            raise _Ambiguous(name)
        fields[name] = Placed(value, at, end)
        at = _skip(text, end)
        mark, at = text[at : at + 1], _skip(text, at + 1)
    if mark != "}" or at != len(text):
        raise ValueError("no end")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Ambiguous
    return made


def _skip(text: str, at: int) -> int:
    blank = BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"no {mark}")
    return _skip(text, at + 1)


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
        return _unlike_chat(values, switches, stream=stream)
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


def _unlike_chat(values: Mapping[str, Any], switches: Switches, *, stream: bool) -> str:
    """Why a body of Chat Completions is not what this server takes, or does not say enough."""
    turns_as_they_are = (
        switches.system_turns == "anywhere"
        and switches.system_role == "system"
        and switches.empty_text
    )
    if not turns_as_they_are:
        return "the server takes turns of another form"
    unknown = {
        *(name for name in LENGTHS[pb.WIRE_OPENAI_CHAT] if name != switches.length_parameter),
        *(() if switches.json_object else ("response_format",)),
        *(() if switches.strict_schemas else ("response_format", "tools")),
        *(() if switches.parallel_tools else ("parallel_tool_calls",)),
        *(() if switches.reasoning == "reasoning_effort" else ("reasoning_effort",)),
        *(() if switches.stream_usage else ("stream_options",)),
    }
    if named := unknown & values.keys():
        return f"the server has no {min(named)}"
    choice = values.get("tool_choice")
    if not switches.allowed_tools and isinstance(choice, dict) and "allowed_tools" in choice:
        return "the server has no allowed_tools"
    options = values.get("stream_options")
    asks = isinstance(options, dict) and options.get("include_usage") is True
    if stream and switches.stream_usage and not asks:
        return "the stream would not say its usage"
    return ""


def _length_of(
    wire: pb.Wire, values: Mapping[str, Any], switches: Switches
) -> tuple[str, int | None]:
    """The field of the largest answer that the provider takes, and its value in the body."""
    name = switches.length_parameter if wire == pb.WIRE_OPENAI_CHAT else "max_tokens"
    return name, values.get(name)


def _length_edit(
    text: str, placed: Placed | None, name: str, max_tokens: int
) -> tuple[int, int, str]:
    """The length in place of a null, else before the first field."""
    if placed is not None:
        return placed.start, placed.end, str(max_tokens)
    begin = text.index("{") + 1
    return begin, begin, f"{_text(name)}:{max_tokens},"


def _edited(text: str, edits: Sequence[tuple[int, int, str]]) -> bytes:
    """The text with pieces of it replaced."""
    made, at = [], 0
    for start, end, new in sorted(edits):
        made += [text[at:start], new]
        at = end
    return "".join([*made, text[at:]]).encode()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
