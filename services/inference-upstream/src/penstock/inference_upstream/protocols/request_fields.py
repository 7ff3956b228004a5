"""What both wires need of a task to make a request: fields that hold JSON, parts of turns, and what
the target does not take.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.wire import Target
from penstock.rpc.errors import invalid
from penstock.service.purity import pure

MULTIPLYING = frozenset({"n", "best_of", "stream", "num_return_sequences", "candidate_count"})
"""Body fields by which one call would become several, or another kind of answer."""


@pure
def parse_json_field(name: str, text: str) -> Any:
    """The value of a field that holds JSON; the order of an object's keys is kept, since for a
    schema it is the order in which the model answers.

    Raises:
        Fault: INVALID_ARGUMENT where it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(name, "is not JSON") from None


@pure
def parse_object_field(name: str, text: str) -> dict[str, Any]:
    """The value of a field that holds a JSON object; empty for an empty text.

    Raises:
        Fault: INVALID_ARGUMENT where it is something else.
    """
    value = parse_json_field(name, text) if text else {}
    if not isinstance(value, dict):
        raise invalid(name, "is not a JSON object")
    return value


@pure
def state_text(name: str, state: bytes) -> str:
    """Opaque state that is text, as all of it is that came by these wires.

    Raises:
        Fault: INVALID_ARGUMENT where it is not.
    """
    try:
        return state.decode()
    except UnicodeDecodeError:
        raise invalid(name, "is not what the provider gave; send it back as it came") from None


@pure
def extra_fields(task: pb.GenerateTask, ours: Collection[str]) -> dict[str, Any]:
    """The caller's further body fields.

    Args:
        ours: body fields that the task's own fields say.

    Raises:
        Fault: INVALID_ARGUMENT where the fields are no object, or are not the caller's to give.
    """
    field = "task.generate.extra_json"
    extra = parse_object_field(field, task.extra_json)
    for name in extra:
        if name in MULTIPLYING:
            raise invalid(field, f"has {name!r}, which is not taken; make several calls instead")
        if name in ours:
            raise invalid(field, f"has {name!r}, which the task's own fields say")
    return extra


@pure
def finished(body: dict[str, Any], target: Target) -> dict[str, Any]:
    """The body with the operator's fields, and without those that are never sent."""
    body |= target.switches.body
    for name in target.switches.omit:
        body.pop(name, None)
    return body


@pure
def check_modalities(task: pb.GenerateTask, target: Target) -> None:
    """Check that the model takes what the turns hold.

    Raises:
        Fault: INVALID_ARGUMENT naming the first part that it does not take.
    """
    for index, message in enumerate(task.messages):
        for number, part in enumerate(message.parts):
            kind = part.WhichOneof("part")
            if kind is not None and kind not in target.modalities:
                takes = ", ".join(sorted(target.modalities))
                raise invalid(
                    f"task.generate.messages[{index}].parts[{number}].{kind}",
                    f"is not taken by {target.model}, which takes {takes}; choose another model, "
                    "or list it in the model's inputs",
                )


@pure
def data_url(media_type: str, data: bytes) -> str:
    """Bytes as a URL (RFC 2397)."""
    return f"data:{media_type};base64,{base64_text(data)}"


@pure
def base64_text(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


@pure
def parts_of(message: pb.Message) -> Iterator[tuple[int, pb.ContentPart]]:
    """The parts of a turn with their numbers, whether it is one text or several parts; empty texts,
    which providers refuse, are left out.
    """
    if message.content:
        yield 0, pb.ContentPart(text=message.content)
    for number, part in enumerate(message.parts):
        if part.WhichOneof("part") != "text" or part.text:
            yield number, part


@pure
def chosen_tools(task: pb.GenerateTask) -> list[pb.Tool]:
    """The tools among which the caller lets the model choose."""
    chosen = set(task.tool_choice.functions)
    return [tool for tool in task.tools if not chosen or tool.name in chosen]
