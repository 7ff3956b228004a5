"""The messages of a request as turns of the contract. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json, dumped, name, object_at, objects, refused, text
from penstock.edge.openai_chat.content import put_content
from penstock.edge.turn_content import unsupported
from penstock.service.purity import pure

ROLES = {
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
}
REASONING_FORMAT = "openai.reasoning_content"
REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put readable reasoning, which their clients send back."""
KNOWN = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "name", "refusal", "audio", "annotations"}
    | {*REASONING_FIELDS, "function_call"}
)
CALL_FIELDS = frozenset({"id", "type", "function", "index"})


@pure
def turns_of(messages: Any) -> Iterable[pb.Message]:
    """The turns.

    Raises:
        BadRequest: there are none, or naming the field that is wrong.
    """
    turns = [_turn(message, at) for at, message in objects(messages, "messages")]
    if not turns:
        raise refused("messages", "must hold at least one message")
    return turns


def _turn(given: Json, at: str) -> pb.Message:
    role = name(given.get("role"), f"{at}.role")
    if role not in ROLES:
        raise refused(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    message = pb.Message(role=ROLES[role])
    put_content(message, given.get("content"), f"{at}.content")
    if given.get("refusal"):
        message.refusal = text(given["refusal"], f"{at}.refusal")
    if role == "tool":
        message.tool_call_id = name(given.get("tool_call_id"), f"{at}.tool_call_id")
    if role == "assistant":
        _put_assistant(message, given, at)
    return message


def _put_assistant(message: pb.Message, given: Json, at: str) -> None:
    """What only the model's own turns have."""
    if given.get("function_call"):
        raise unsupported(f"{at}.function_call", "is no longer taken; send tool_calls")
    for field in REASONING_FIELDS:
        if isinstance(given.get(field), str) and given[field]:
            message.reasoning.add(text=given[field], format=REASONING_FORMAT)
            break
    calls = objects(given.get("tool_calls"), f"{at}.tool_calls")
    message.tool_calls.extend(_call(call, place) for place, call in calls)
    extra = {key: value for key, value in given.items() if key not in KNOWN and value is not None}
    if extra:
        message.extra_json = dumped(extra)


def _call(given: Json, at: str) -> pb.ToolCall:
    kind = text(given.get("type"), f"{at}.type") or "function"
    if kind != "function":
        raise unsupported(f"{at}.type", f"{kind!r} is not taken; send function calls")
    function = object_at(given.get("function"), f"{at}.function")
    extra = {key: value for key, value in given.items() if key not in CALL_FIELDS}
    return pb.ToolCall(
        id=name(given.get("id"), f"{at}.id"),
        name=name(function.get("name"), f"{at}.function.name"),
        arguments_json=text(function.get("arguments"), f"{at}.function.arguments") or "{}",
        extra_json=dumped(extra) if extra else "",
    )
