"""The turns of a conversation, as chat completions have them. Pure: messages in, JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.breakpoints import Breakpoints, breakpoints
from penstock.inference_upstream.protocols.request_fields import (
    data_url,
    parse_json_field,
    parse_object_field,
    parts_of,
    state_text,
)
from penstock.inference_upstream.switches import Switches
from penstock.service.purity import pure
from penstock.tasks.answers import text_of
from penstock.tasks.roles import ROLE_NAMES

PREFIX = "openai."
"""Begins the format of reasoning that came by this wire; the rest is the name of its field."""
DETAILS = "openai.reasoning_details"
MARKS = {
    "cache_control": ("cache_control", {"type": "ephemeral"}),
    "prompt_cache_breakpoint": ("prompt_cache_breakpoint", {"mode": "explicit"}),
}
"""How a cache breakpoint is marked, by the value of the switch."""


@pure
def turns(task: pb.GenerateTask, switches: Switches) -> list[dict[str, Any]]:
    """The turns of the conversation.

    Raises:
        Fault: INVALID_ARGUMENT naming a field that should be JSON and is not.
    """
    marked = breakpoints(task, switches)
    messages = placed_system_turns(task.messages, switches)
    made = [_turn(index, each, switches, marked) for index, each in enumerate(messages)]
    return made if switches.empty_text else [turn for turn in made if _says_something(turn)]


@pure
def placed_system_turns(messages: Sequence[pb.Message], switches: Switches) -> Sequence[pb.Message]:
    """The messages with system turns where the target takes them; others become the user's."""
    if switches.system_turns == "anywhere":
        return messages
    placed, is_head = [], switches.system_turns == "first"
    for message in messages:
        is_system = message.role == pb.ROLE_SYSTEM
        is_head = is_head and is_system
        placed.append(_as_users(message) if is_system and not is_head else message)
    return placed


def _as_users(message: pb.Message) -> pb.Message:
    moved = pb.Message()
    moved.CopyFrom(message)
    moved.role = pb.ROLE_USER
    return moved


def _turn(
    index: int, message: pb.Message, switches: Switches, marked: Breakpoints
) -> dict[str, Any]:
    role = ROLE_NAMES[message.role]
    if message.role == pb.ROLE_SYSTEM:
        role = switches.system_role
    turn: dict[str, Any] = {"role": role, "content": _content(index, message, switches, marked)}
    at = f"task.generate.messages[{index}]"
    if message.refusal:
        turn["content"] = turn["content"] or None
        turn["refusal"] = message.refusal
    if message.tool_calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [
            _tool_call(call, switches, f"{at}.tool_calls[{number}]")
            for number, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if switches.reasoning_back:
        turn |= _reasoning(message.reasoning, at)
    if switches.extras_back:
        turn |= parse_object_field(f"{at}.extra_json", message.extra_json)
    return turn


def _content(
    index: int, message: pb.Message, switches: Switches, marked: Breakpoints
) -> str | list[dict[str, Any]]:
    """One text as it is, or a list of parts where there are several or a breakpoint follows."""
    mark = MARKS.get(switches.breakpoints)
    is_marked = mark is not None and (index, None) in marked
    if not message.parts and not is_marked:
        return _failed(message, message.content)
    if message.role == pb.ROLE_TOOL and all(part.HasField("text") for part in message.parts):
        return _failed(message, text_of(message))
    parts = []
    for number, part in parts_of(message):
        parts.append(_part(part))
        if mark is not None and (index, number) in marked:
            parts[-1][mark[0]] = mark[1]
    if mark is not None and is_marked and parts:
        parts[-1][mark[0]] = mark[1]
    return parts


def _failed(message: pb.Message, text: str) -> str:
    """The text of a turn. The wire has no field for a tool call that failed, so the text says so
    where it is otherwise empty.
    """
    return text or ("the tool call failed" if message.is_error else "")


def _part(part: pb.ContentPart) -> dict[str, Any]:
    kind = part.WhichOneof("part")
    if kind == "image":
        image = part.image
        url = image.url or data_url(image.media_type, image.data)
        shown = {"url": url, **({"detail": image.detail} if image.detail else {})}
        return {"type": "image_url", "image_url": shown}
    if kind == "file":
        return {"type": "file", "file": _file(part.file)}
    return {"type": "text", "text": part.text}


def _file(file: pb.File) -> dict[str, Any]:
    made = {"filename": file.name} if file.name else {}
    if file.file_id:
        return {**made, "file_id": file.file_id}
    return {**made, "file_data": file.url or data_url(file.media_type, file.data)}


def _tool_call(call: pb.ToolCall, switches: Switches, at: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json},
    }
    if switches.extras_back:
        made |= parse_object_field(f"{at}.extra_json", call.extra_json)
    return made


def _reasoning(blocks: Sequence[pb.Reasoning], at: str) -> dict[str, Any]:
    """The reasoning that came by this wire, in the fields in which it came."""
    fields: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        if not block.format.startswith(PREFIX):
            continue
        name = block.format.removeprefix(PREFIX)
        if block.format == DETAILS:
            field = f"{at}.reasoning[{number}].state"
            entries = parse_json_field(field, state_text(field, block.state))
            fields[name] = fields.get(name, []) + (entries if isinstance(entries, list) else [])
        else:
            fields[name] = fields.get(name, "") + block.text
    return fields


def _says_something(turn: dict[str, Any]) -> bool:
    return any(value for name, value in turn.items() if name != "role")
