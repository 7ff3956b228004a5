"""The content blocks of a message, as they begin, grow and end.

Pure but for the answer that grows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import GrowingAnswer, ToolCallParts
from penstock.inference_upstream.protocols.anthropic_messages.turns import BLOCK, REDACTED, THINKING
from penstock.inference_upstream.protocols.faults import malformed
from penstock.inference_upstream.protocols.json_values import dumped, text_of

Json = dict[str, Any]
Chunks = list[pb.GenerateChunk]


@dataclass
class OpenBlock:
    """A block that has begun and not ended."""

    kind: str
    value: Json
    """The block as it began."""
    call: ToolCallParts | None = None
    reasoning: int = 0
    """Number of the block of reasoning that it is, where it is one."""
    input_pieces: list[str] = field(default_factory=list)


class Blocks:
    """The blocks of one message."""

    def __init__(self, answer: GrowingAnswer) -> None:
        self._answer = answer
        self._open: dict[int, OpenBlock] = {}
        self._ended: set[int] = set()

    def are_closed(self, reason: pb.FinishReason) -> bool:
        """Whether each block has ended, or need not have: an answer may be cut by its length."""
        return not self._open or reason == pb.FINISH_REASON_LENGTH

    def start(self, index: int, value: Json) -> Chunks:
        """A block begins; it may have all its content already.

        Raises:
            Fault: UPSTREAM_MALFORMED where it has begun before.
        """
        if index in self._open or index in self._ended:
            raise malformed("a block begins twice")
        block = OpenBlock(text_of(value["type"]), dict(value))
        self._open[index] = block
        if block.kind == "text":
            return self._text(text_of(value.get("text")))
        if block.kind == "tool_use":
            return self._start_call(block)
        return self._start_reasoning(block)

    def _text(self, text: str) -> Chunks:
        return [self._answer.add_text(text)] if text else []

    def _start_call(self, block: OpenBlock) -> Chunks:
        call = block.call = self._answer.open_tool_call()
        call.id, call.name = text_of(block.value["id"]), text_of(block.value["name"])
        if not call.name:
            raise malformed("a tool call has no name")
        given = block.value.get("input")
        return _some(self._answer.add_arguments(call, dumped(given) if given else ""))

    def _start_reasoning(self, block: OpenBlock) -> Chunks:
        block.reasoning = len(self._answer.reasoning)
        if block.kind == "thinking":
            text, state = text_of(block.value.get("thinking")), block.value.get("signature")
            return [self._reasoning(block, THINKING, text, text_of(state).encode())]
        if block.kind == "redacted_thinking":
            state = text_of(block.value["data"])
            return [self._reasoning(block, REDACTED, "", state.encode())]
        return [self._reasoning(block, BLOCK)]

    def _reasoning(
        self, block: OpenBlock, kind: str, text: str = "", state: bytes = b""
    ) -> pb.GenerateChunk:
        return self._answer.add_reasoning(block.reasoning, kind, text, state)

    def adds_text(self, index: int, delta: Json) -> bool:
        """Whether a delta adds text, and nothing else, to an open block of text."""
        block = self._open.get(index)
        return block is not None and block.kind == "text" and delta["type"] == "text_delta"

    def add(self, index: int, delta: Json) -> Chunks:
        """A block grows.

        Raises:
            Fault: UPSTREAM_MALFORMED where it has not begun, or cannot grow so.
        """
        block = self._open.get(index)
        if block is None:
            raise malformed("a block grows that has not begun")
        kind = delta["type"]
        if block.kind == "text":
            if kind != "text_delta":
                return []  # citations, which are not kept
            text = text_of(delta["text"])
            return [self._answer.add_text(text)] if text else []
        if kind == "input_json_delta":
            return self._add_input(block, text_of(delta["partial_json"]))
        if block.kind == "thinking" and kind == "thinking_delta":
            return [self._reasoning(block, THINKING, text_of(delta["thinking"]))]
        if block.kind == "thinking" and kind == "signature_delta":
            return [self._reasoning(block, THINKING, "", text_of(delta["signature"]).encode())]
        if block.kind in ("tool_use", "thinking", "redacted_thinking"):
            raise malformed(f"a block {block.kind} grows by {kind}")
        _grow(block.value, delta)
        return []

    def _add_input(self, block: OpenBlock, piece: str) -> Chunks:
        if block.call is not None:
            return _some(self._answer.add_arguments(block.call, piece)) if piece else []
        block.input_pieces.append(piece)
        return []

    def stop(self, index: int) -> Chunks:
        """A block ends.

        Raises:
            Fault: UPSTREAM_MALFORMED where it has not begun, or its input is not JSON.
        """
        block = self._open.pop(index, None)
        if block is None:
            raise malformed("a block ends that has not begun")
        self._ended.add(index)
        if block.kind in ("text", "tool_use", "thinking", "redacted_thinking"):
            return []
        pieces = "".join(block.input_pieces)
        if pieces:
            block.value["input"] = orjson.loads(pieces)
        return [self._reasoning(block, BLOCK, "", dumped(block.value).encode())]


def _grow(value: Json, delta: Json) -> None:
    """Add the fields of a delta to a block that is not known."""
    for name, piece in delta.items():
        if name == "type":
            continue
        before = value.get(name)
        both_texts = isinstance(before, str) and isinstance(piece, str)
        value[name] = before + piece if both_texts else piece


def _some(chunk: pb.GenerateChunk | None) -> Chunks:
    return [] if chunk is None else [chunk]
