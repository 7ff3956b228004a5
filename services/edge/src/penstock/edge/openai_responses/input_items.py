"""Input items as the contract's turns. Pure: JSON in, messages out.

An answer of the model comes back as several items: reasoning, messages, function calls. What of it
stands together becomes one turn, as it was; reasoning keeps its place in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import ReasoningBlock
from penstock.edge.answer_blocks.opaque import unpacked
from penstock.edge.answer_blocks.replay import put_reasoning
from penstock.edge.json_fields import Json, name, objects, refused, required, text, word
from penstock.edge.openai_responses.content import parts_of, refusal_of
from penstock.edge.turn_content import put_parts, unsupported
from penstock.service.purity import pure

ROLES = {
    "user": pb.ROLE_USER,
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_SYSTEM,
    "assistant": pb.ROLE_ASSISTANT,
}
MESSAGE, REFERENCE = "message", "item_reference"
FUNCTION_CALL, FUNCTION_OUTPUT, REASONING = "function_call", "function_call_output", "reasoning"


@pure
def items_of(value: Any) -> list[Json]:
    """The items of `input`; a text is a user's message.

    Raises:
        BadRequest: it is neither a text nor a list of objects, or it is missing.
    """
    if isinstance(value, str):
        return [{"type": MESSAGE, "role": "user", "content": value}]
    return [item for _, item in objects(required(value, "input"), "input")]


@pure
def kind_of(item: Json, at: str) -> str:
    """The type of an item, which may be left out of messages and references."""
    kind = text(item.get("type"), f"{at}.type")
    if kind:
        return kind
    if "role" in item:
        return MESSAGE
    if set(item) <= {"id", "type"} and item.get("id"):
        return REFERENCE
    raise refused(f"{at}.type", "is required")


class _Turns:
    """Turns as items are added to them."""

    def __init__(self) -> None:
        self.messages: list[pb.Message] = []
        self._parts: list[pb.ContentPart] = []
        """Texts of the model's turn that is open."""
        self._is_open = False

    def assistant(self) -> pb.Message:
        """The model's turn that is open; one is begun where none is."""
        if not self._is_open:
            self._is_open = True
            self.messages.append(pb.Message(role=pb.ROLE_ASSISTANT))
        return self.messages[-1]

    def say(self, parts: Iterable[pb.ContentPart]) -> None:
        """Add texts to the model's turn."""
        self.assistant()
        self._parts += parts

    def think(self, thought: ReasoningBlock | None) -> None:
        """Add reasoning to the model's turn."""
        if thought is None:
            return
        message = self.assistant()
        put_reasoning(message, thought, len(self._parts) + len(message.tool_calls))

    def close(self) -> None:
        """End the model's turn."""
        if self._is_open:
            put_parts(self.messages[-1], self._parts)
        self._is_open, self._parts = False, []

    def add(self, message: pb.Message) -> None:
        """Add a turn of somebody else."""
        self.close()
        self.messages.append(message)


@pure
def turns_of(items: Sequence[Json], places: Sequence[str]) -> list[pb.Message]:
    """The turns that items make.

    Args:
        places: where each item stands, for refusals.

    Raises:
        BadRequest: naming the field that is wrong or cannot be honoured.
    """
    turns = _Turns()
    for item, at in zip(items, places, strict=True):
        kind = kind_of(item, at)
        if kind == MESSAGE:
            _add_message(turns, item, at)
        elif kind == FUNCTION_CALL:
            turns.assistant().tool_calls.append(_call(item, at))
        elif kind == FUNCTION_OUTPUT:
            turns.add(_output(item, at))
        elif kind == REASONING:
            turns.think(_thought(item, at))
        else:
            raise unsupported(
                f"{at}.type",
                f"{kind!r} is not available; send messages, function calls and their outputs",
            )
    turns.close()
    return turns.messages


def _add_message(turns: _Turns, item: Json, at: str) -> None:
    role = word(required(item.get("role"), f"{at}.role"), f"{at}.role", tuple(ROLES))
    content = required(item.get("content"), f"{at}.content")
    parts = parts_of(content, f"{at}.content")
    if role == "assistant":
        turns.say(parts)
        turns.assistant().refusal += refusal_of(content, f"{at}.content")
        return
    if not parts:
        raise refused(f"{at}.content", "must not be empty")
    message = pb.Message(role=ROLES[role])
    put_parts(message, parts)
    turns.add(message)


def _call(item: Json, at: str) -> pb.ToolCall:
    return pb.ToolCall(
        id=name(item.get("call_id"), f"{at}.call_id"),
        name=name(item.get("name"), f"{at}.name"),
        arguments_json=text(item.get("arguments"), f"{at}.arguments") or "{}",
    )


def _output(item: Json, at: str) -> pb.Message:
    call_id = name(item.get("call_id"), f"{at}.call_id")
    message = pb.Message(role=pb.ROLE_TOOL, tool_call_id=call_id)
    put_parts(message, parts_of(required(item.get("output"), f"{at}.output"), f"{at}.output"))
    return message


def _thought(item: Json, at: str) -> ReasoningBlock | None:
    """Reasoning that comes back; None without its opaque state, since no provider takes it so."""
    return unpacked(text(item.get("encrypted_content"), f"{at}.encrypted_content"))
