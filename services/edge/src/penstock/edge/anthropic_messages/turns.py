"""The turns of a request, as the contract's messages. Pure: JSON in, messages out.

Results of tools become turns of their own. An assistant's turn stays one: its thinking keeps its
place among its texts and calls, which is where its provider must see it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import ReasoningBlock
from penstock.edge.answer_blocks.opaque import unpacked
from penstock.edge.answer_blocks.replay import put_reasoning
from penstock.edge.anthropic_messages.content import is_marked, parts_of, parts_of_block
from penstock.edge.anthropic_messages.ids import inward_id
from penstock.edge.json_fields import (
    Json,
    boolean,
    dumped,
    list_at,
    name,
    object_at,
    objects,
    refused,
    required,
    text,
    word,
)
from penstock.edge.turn_content import put_parts
from penstock.service.purity import pure

THINKING, REDACTED = "anthropic.thinking", "anthropic.redacted_thinking"
BLOCK = "anthropic.block"
"""Formats of reasoning that this protocol makes, as in the contract; that of `anthropic.block` is a
block that Penstock does not know, whose state is its JSON.
"""
ROLES = ("user", "assistant", "system")


@pure
def system_turn(value: Any) -> list[pb.Message]:
    """The turn of `system`; none where it is absent or empty."""
    if not isinstance(value, str):
        list_at(value, "system")
    message = pb.Message(role=pb.ROLE_SYSTEM)
    put_parts(message, parts_of(value, "system"))
    return [message] if message.content or message.parts else []


@pure
def turns_of(value: Any) -> list[pb.Message]:
    """The turns of `messages`.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    made: list[pb.Message] = []
    for at, turn in objects(required(value, "messages"), "messages"):
        role = word(required(turn.get("role"), f"{at}.role"), f"{at}.role", ROLES)
        content = required(turn.get("content"), f"{at}.content")
        if not isinstance(content, str):
            list_at(content, f"{at}.content")
        if role == "assistant":
            made.append(_assistants(content, f"{at}.content"))
        else:
            turns = list(_callers(content, f"{at}.content", role))
            if not turns:
                raise refused(f"{at}.content", "must not be empty")
            made += turns
    if not made:
        raise refused("messages", "needs at least one message")
    return made


def _callers(content: Any, at: str, role: str) -> Iterator[pb.Message]:
    """A turn of the user or the system: what stands between results of tools is one message."""
    known = pb.ROLE_USER if role == "user" else pb.ROLE_SYSTEM
    between: list[pb.ContentPart] = []
    if isinstance(content, str):
        yield from _message(known, parts_of(content, at))
        return
    for place, block in objects(content, at):
        if block.get("type") == "tool_result":
            yield from _message(known, between)
            between = []
            yield _tool_result(block, place)
        else:
            between += parts_of_block(block, place)
    yield from _message(known, between)


def _message(role: pb.Role, parts: list[pb.ContentPart]) -> Iterator[pb.Message]:
    if parts:
        message = pb.Message(role=role)
        put_parts(message, parts)
        yield message


def _tool_result(block: Json, at: str) -> pb.Message:
    call_id = inward_id(name(block.get("tool_use_id"), f"{at}.tool_use_id"))
    failed = boolean(block.get("is_error"), f"{at}.is_error") or False
    message = pb.Message(role=pb.ROLE_TOOL, tool_call_id=call_id, is_error=failed)
    content = block.get("content")
    put_parts(message, parts_of(content, f"{at}.content"))
    message.cache_breakpoint = message.cache_breakpoint or is_marked(block, at)
    return message


def _assistants(content: Any, at: str) -> pb.Message:
    """A turn of the model."""
    message = pb.Message(role=pb.ROLE_ASSISTANT)
    if isinstance(content, str):
        message.content = content
        return message
    parts: list[pb.ContentPart] = []
    for place, block in objects(content, at):
        kind = name(block.get("type"), f"{place}.type")
        if kind == "text":
            parts += parts_of_block(block, place)
        elif kind == "tool_use":
            message.tool_calls.append(_tool_call(block, place))
            message.cache_breakpoint = message.cache_breakpoint or is_marked(block, place)
        else:
            position = len(parts) + len(message.tool_calls)
            put_reasoning(message, _thought(block, kind, place), position)
    _put_texts(message, parts)
    return message


def _put_texts(message: pb.Message, parts: list[pb.ContentPart]) -> None:
    """The texts of the model's turn; a breakpoint after one that calls follow stays at the text."""
    if message.tool_calls and any(part.cache_breakpoint for part in parts):
        message.parts.extend(parts)
    else:
        marked = message.cache_breakpoint
        put_parts(message, parts)
        message.cache_breakpoint = message.cache_breakpoint or marked


def _tool_call(block: Json, at: str) -> pb.ToolCall:
    given = object_at(required(block.get("input"), f"{at}.input"), f"{at}.input")
    return pb.ToolCall(
        id=inward_id(name(block.get("id"), f"{at}.id")),
        name=name(block.get("name"), f"{at}.name"),
        arguments_json=dumped(given),
    )


def _thought(block: Json, kind: str, at: str) -> ReasoningBlock:
    """A block that only its provider understands, as it came."""
    if kind == "thinking":
        said = text(required(block.get("thinking"), f"{at}.thinking"), f"{at}.thinking")
        signature = text(block.get("signature"), f"{at}.signature")
        foreign = unpacked(signature)
        if foreign is None:
            return ReasoningBlock(said, signature.encode(), THINKING)
        return ReasoningBlock(said, foreign.state, foreign.format)
    if kind == "redacted_thinking":
        data = name(block.get("data"), f"{at}.data")
        return unpacked(data) or ReasoningBlock(state=data.encode(), format=REDACTED)
    return ReasoningBlock(state=dumped(block).encode(), format=BLOCK)
