"""Chunks of an answer into blocks, one after the other.

Clients of Anthropic's and OpenAI's streams append to the block that is open; a provider may mix
the pieces of parallel tool calls. So one block is open at a time. A tool call that is open stays so
until its arguments are a whole JSON value; what comes in the meantime for later blocks waits, and
follows as soon as it may.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import orjson
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import (
    Begun,
    Block,
    Ended,
    Event,
    Grown,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
)
from penstock.edge.answer_blocks.extras import EXTRAS, Extra, packed_extras
from penstock.tasks.answers import whole_chunk

NO_ARGUMENTS = "{}"
_Piece = TextBlock | RefusalBlock | pb.ToolCallDelta | pb.ReasoningDelta


@dataclass(eq=False)
class _Growing:
    """A block that is not whole yet."""

    block: Block
    """The block as it began."""
    texts: list[str] = field(default_factory=list)
    state: bytes = b""
    number: int = -1
    """Number of the reasoning in the answer."""
    has_begun: bool = False

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def whole(self) -> Block:
        """The block with all that was added to it."""
        if isinstance(self.block, ToolCallBlock):
            return replace(self.block, arguments_json=self.text or NO_ARGUMENTS)
        if isinstance(self.block, ReasoningBlock):
            return replace(self.block, text=self.text, state=self.state)
        return replace(self.block, text=self.text)

    def may_end(self) -> bool:
        """Whether a later block may follow: a call's arguments must be whole."""
        return not isinstance(self.block, ToolCallBlock) or _is_json(self.text)

    def says_something(self) -> bool:
        return isinstance(self.block, ToolCallBlock) or bool(self.texts or self.state)


class BlockSequence:
    """The blocks of one answer as it grows. Feed it each chunk, then `finish`."""

    def __init__(self) -> None:
        self._queue: list[_Growing] = []
        """The open block first, then those that wait."""
        self._index = 0
        """Number of the open block among all blocks of the answer."""
        self._calls: dict[int, _Growing] = {}
        self._formats: dict[int, str] = {}
        """Formats of reasoning by the blocks' numbers."""
        self._has_text = False
        self._extras: list[Extra] = []

    def add(self, chunk: pb.GenerateChunk) -> list[Event]:
        """What a chunk adds."""
        if chunk.delta and not (chunk.tool_calls or chunk.reasoning or chunk.refusal):
            return self._add_text(TextBlock, chunk.delta)
        events: list[Event] = []
        for piece in self._in_order(chunk):
            events += self._add(piece)
        if chunk.extra_json:
            self._extras.append(Extra("", chunk.extra_json))
        return events

    def finish(self) -> list[Event]:
        """The ends of the blocks that are open or wait, and what the provider must see again of
        calls and of the turn, as one more block.
        """
        events: list[Event] = []
        if self._extras:
            block = ReasoningBlock(state=packed_extras(self._extras), format=EXTRAS)
            self._queue.append(_Growing(block, state=block.state))
        while self._queue:
            events += self._end_first()
        return events

    def _in_order(self, chunk: pb.GenerateChunk) -> Iterator[_Piece]:
        """The pieces of a chunk: reasoning before the text or call that stands at its position."""
        self._has_text = self._has_text or bool(chunk.delta)
        placed: list[tuple[int, int, _Piece]] = []
        if chunk.delta:
            placed.append((0, 1, TextBlock(chunk.delta)))
        if chunk.refusal:
            placed.append((self._has_text, 0, RefusalBlock(chunk.refusal)))
        placed += [(call.index + self._has_text, 2, call) for call in chunk.tool_calls]
        placed += [(thought.position, 0, thought) for thought in chunk.reasoning]
        placed.sort(key=lambda each: each[:2])
        return (piece for _, _, piece in placed)

    def _add(self, piece: _Piece) -> list[Event]:
        if isinstance(piece, pb.ToolCallDelta):
            return self._add_call(piece)
        if isinstance(piece, pb.ReasoningDelta):
            return self._add_reasoning(piece)
        return self._add_text(type(piece), piece.text)

    def _add_text(self, kind: type[TextBlock | RefusalBlock], text: str) -> list[Event]:
        growing = self._queue[-1] if self._queue else None
        if growing is None or type(growing.block) is not kind:
            growing = self._enqueue(_Growing(kind()))
        return self._grow(growing, text)

    def _add_call(self, delta: pb.ToolCallDelta) -> list[Event]:
        growing = self._calls.get(delta.index)
        if growing is None:
            call_id = delta.id or f"call_{delta.index}"
            growing = self._enqueue(_Growing(ToolCallBlock(call_id, delta.name)))
            self._calls[delta.index] = growing
        if delta.extra_json and isinstance(growing.block, ToolCallBlock):
            self._extras.append(Extra(growing.block.id, delta.extra_json))
        if growing not in self._queue:
            return []  # the arguments of a call that has ended are whole
        return self._grow(growing, delta.arguments_json)

    def _add_reasoning(self, delta: pb.ReasoningDelta) -> list[Event]:
        growing = next(
            (
                each
                for each in reversed(self._queue)
                if isinstance(each.block, ReasoningBlock) and each.number == delta.index
            ),
            None,
        )
        if growing is None:
            known = self._formats.setdefault(delta.index, delta.format)
            growing = self._enqueue(_Growing(ReasoningBlock(format=known), number=delta.index))
        growing.state += delta.state
        return self._grow(growing, delta.text)

    def _enqueue(self, growing: _Growing) -> _Growing:
        self._queue.append(growing)
        return growing

    def _grow(self, growing: _Growing, text: str) -> list[Event]:
        """Add text to a block, and bring forward what may now follow."""
        if text:
            growing.texts.append(text)
        first = self._queue[0]
        events: list[Event] = []
        if first is growing:
            events += [Grown(self._index, text)] if first.has_begun and text else self._begin()
        while len(self._queue) > 1 and self._queue[0].may_end():
            events += self._end_first()
            events += self._begin()
        return events

    def _begin(self) -> list[Event]:
        """Begin the first block and give what it has so far. Reasoning begins with its first text,
        since without one it is known only at its end what it is.
        """
        growing = self._queue[0]
        if growing.has_begun or (isinstance(growing.block, ReasoningBlock) and not growing.texts):
            return []
        growing.has_begun = True
        begun: list[Event] = [Begun(self._index, growing.block)]
        return [*begun, Grown(self._index, growing.text)] if growing.texts else begun

    def _end_first(self) -> list[Event]:
        """End the first block; one that says nothing is left out."""
        events = self._begin()
        growing = self._queue.pop(0)
        if not growing.says_something():
            return events
        whole = growing.whole()
        if not growing.has_begun:
            events.append(Begun(self._index, whole))
        events.append(Ended(self._index, whole))
        self._index += 1
        return events


def _is_json(text: str) -> bool:
    if not text.endswith("}"):
        return False
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def blocks_of(answer: pb.GenerateResult) -> list[Block]:
    """The blocks of a whole answer, in order."""
    sequence = BlockSequence()
    events = sequence.add(whole_chunk(answer)) + sequence.finish()
    return [event.block for event in events if isinstance(event, Ended)]
