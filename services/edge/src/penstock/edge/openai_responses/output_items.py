"""Blocks of an answer as output items. Pure: values in, JSON out."""

from __future__ import annotations

from typing import NamedTuple

from penstock.edge.answer_blocks.blocks import (
    Block,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
)
from penstock.edge.answer_blocks.opaque import packed
from penstock.edge.json_fields import Json
from penstock.service.purity import pure

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"
PREFIXES: dict[type[Block], str] = {
    TextBlock: "msg",
    RefusalBlock: "msg",
    ReasoningBlock: "rs",
    ToolCallBlock: "fc",
}


class ItemOptions(NamedTuple):
    """How items are shown."""

    stem: str
    """What the identifiers of a response's items have in common."""
    has_state: bool
    """Whether reasoning shows its opaque state, so that the caller can send it back."""


@pure
def item_id(block: Block, index: int, options: ItemOptions) -> str:
    """The identifier of an item by its place in the output."""
    return f"{PREFIXES[type(block)]}_{options.stem}_{index}"


@pure
def begun_item(block: Block, index: int, options: ItemOptions) -> Json:
    """An item before its content."""
    shown: Json = {"id": item_id(block, index, options)}
    match block:
        case TextBlock() | RefusalBlock():
            content: list[Json] = []
            told = {"type": "message", "role": "assistant", "content": content}
            return {**shown, **told, "status": IN_PROGRESS}
        case ReasoningBlock():
            return {**shown, "type": "reasoning", "summary": []}
        case ToolCallBlock():
            named = {"call_id": block.id, "name": block.name, "arguments": ""}
            return {**shown, "type": "function_call", **named, "status": IN_PROGRESS}


@pure
def whole_item(block: Block, index: int, options: ItemOptions, status: str = COMPLETED) -> Json:
    """An item with its content."""
    shown = begun_item(block, index, options)
    match block:
        case TextBlock() | RefusalBlock():
            return {**shown, "content": [part_of(block)], "status": status}
        case ToolCallBlock():
            return {**shown, "arguments": block.arguments_json, "status": status}
        case ReasoningBlock(text):
            summary = [{"type": "summary_text", "text": text}] if text else []
            state = {"encrypted_content": packed(block, with_text=True)}
            return {**shown, "summary": summary, **(state if options.has_state else {})}


@pure
def part_of(block: TextBlock | RefusalBlock) -> Json:
    """The content part of a message; one without text is the part at its beginning."""
    if isinstance(block, RefusalBlock):
        return {"type": "refusal", "refusal": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
