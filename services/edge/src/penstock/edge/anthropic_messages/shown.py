"""Blocks of an answer as this protocol shows them. Pure: values in, JSON out.

A refusal is no block: it explains why the message stopped.
"""

from __future__ import annotations

import orjson
from penstock.edge.answer_blocks.blocks import (
    Block,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
)
from penstock.edge.answer_blocks.opaque import packed
from penstock.edge.anthropic_messages.ids import outward_id
from penstock.edge.anthropic_messages.turns import BLOCK, REDACTED, THINKING
from penstock.edge.json_fields import Json
from penstock.service.purity import pure

NO_INPUT = orjson.Fragment(b"{}")


@pure
def whole_block(block: Block) -> Json | orjson.Fragment | None:
    """A whole block; None for a refusal."""
    match block:
        case TextBlock(text):
            return {"type": "text", "text": text}
        case ToolCallBlock():
            given = block.arguments_json
            return _tool_use(block, orjson.Fragment(given) if _is_object(given) else NO_INPUT)
        case ReasoningBlock(text) if is_thinking(block):
            return {"type": "thinking", "thinking": text, "signature": signature_of(block)}
        case ReasoningBlock():
            return _opaque(block)
        case RefusalBlock():
            return None


@pure
def begun_block(block: Block) -> Json | orjson.Fragment | None:
    """A block as it begins, before its deltas; None for a refusal."""
    match block:
        case TextBlock():
            return {"type": "text", "text": ""}
        case ToolCallBlock():
            return _tool_use(block, NO_INPUT)
        case ReasoningBlock() if block.format == THINKING or not block.state:
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ReasoningBlock():
            return _opaque(block)
        case RefusalBlock():
            return None


@pure
def is_thinking(block: ReasoningBlock) -> bool:
    """Whether a whole block is shown as thinking; one without readable text of another provider is
    shown as redacted.
    """
    return block.format == THINKING or bool(block.text)


@pure
def signature_of(block: ReasoningBlock) -> str:
    """The signature of a thinking block, in which other providers' state travels too."""
    return _own_text(block) if block.format == THINKING else packed(block)


def _opaque(block: ReasoningBlock) -> Json | orjson.Fragment:
    """A block that only its provider understands."""
    if block.format == BLOCK and _is_object(block.state):
        return orjson.Fragment(block.state)
    data = _own_text(block) if block.format == REDACTED else packed(block)
    return {"type": "redacted_thinking", "data": data}


def _tool_use(block: ToolCallBlock, given: orjson.Fragment) -> Json:
    return {"type": "tool_use", "id": outward_id(block.id), "name": block.name, "input": given}


def _own_text(block: ReasoningBlock) -> str:
    """State that this protocol made, which is text."""
    try:
        return block.state.decode()
    except UnicodeDecodeError:
        return packed(block)


def _is_object(text: str | bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False
