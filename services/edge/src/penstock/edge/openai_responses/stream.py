"""A streamed response as server-sent events: response.created, response.in_progress, then of each
item its beginning, its pieces and its end, then the whole response. Every event has its number.
"""

from __future__ import annotations

from typing import Any

import orjson
from penstock.api.common.v1 import common_pb2
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
from penstock.edge.answer_blocks.sequence import BlockSequence
from penstock.edge.json_fields import Json
from penstock.edge.openai_responses.output_items import (
    IN_PROGRESS,
    begun_item,
    item_id,
    part_of,
    whole_item,
)
from penstock.edge.openai_responses.response import (
    ResponseHead,
    final_response,
    item_status,
    response_object,
)

EVENT = b"event: %b\ndata: %b\n\n"
DELTA = (
    b"event: response.%b.delta\n"
    b'data: {"type":"response.%b.delta","sequence_number":%d,"item_id":"%b","output_index":%d,'
    b'%b"delta":%b}\n\n'
)
KEEP_ALIVE = b": keep-alive\n\n"
GROWS_BY: dict[type[Block], tuple[bytes, bytes]] = {
    TextBlock: (b"output_text", b'"content_index":0,"logprobs":[],'),
    RefusalBlock: (b"refusal", b'"content_index":0,'),
    ToolCallBlock: (b"function_call_arguments", b""),
    ReasoningBlock: (b"reasoning_summary_text", b'"summary_index":0,'),
}
"""Names of the events by which an item grows, and their further fields."""


class ResponseStream:
    """The events of one response."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._options = head.item_options
        self._sequence = BlockSequence()
        self._blocks: list[Block] = []
        """Those that are whole."""
        self._events = 0
        self._open: type[Block] = TextBlock
        self._open_id = b""
        self._finish_reason: pb.FinishReason = pb.FINISH_REASON_UNSPECIFIED

    @property
    def blocks(self) -> list[Block]:
        """The blocks that are whole."""
        return self._blocks

    @property
    def finish_reason(self) -> pb.FinishReason:
        """Why the answer ended, as far as it has."""
        return self._finish_reason

    def start(self) -> bytes:
        """The response without output."""
        begun = response_object(self._head, IN_PROGRESS)
        created = self._event("response.created", response=begun)
        return created + self._event("response.in_progress", response=begun)

    def piece(self, chunk: pb.GenerateChunk) -> bytes:
        """What a chunk adds."""
        if chunk.keep_alive:
            return KEEP_ALIVE
        if chunk.finish_reason:
            self._finish_reason = chunk.finish_reason
        return b"".join(map(self._frame, self._sequence.add(chunk)))

    def end(self, usage: common_pb2.Usage) -> bytes:
        """The end of the open items, and the whole response."""
        events = self._sequence.finish()
        frames = b"".join(
            self._frame(event, is_last=index == len(events) - 1)
            for index, event in enumerate(events)
        )
        whole = final_response(self._head, self._blocks, self._finish_reason, usage)
        return frames + self._event(f"response.{whole['status']}", response=whole)

    def failure(self, code: str, message: str) -> bytes:
        """The end of a response that failed: what is whole of it, and why."""
        output = [
            whole_item(block, index, self._options) for index, block in enumerate(self._blocks)
        ]
        error = {"code": code, "message": message}
        failed = response_object(self._head, "failed", output, error=error)
        return self._event("response.failed", response=failed)

    def _frame(self, event: Event, *, is_last: bool = False) -> bytes:
        match event:
            case Grown(index, text):
                return self._grown(index, text)
            case Begun(index, block):
                return self._begun(index, block)
            case Ended(index, block):
                return self._ended(index, block, is_last=is_last)

    def _grown(self, index: int, text: str) -> bytes:
        name, fields = GROWS_BY[self._open]
        number = self._number()
        return DELTA % (name, name, number, self._open_id, index, fields, orjson.dumps(text))

    def _begun(self, index: int, block: Block) -> bytes:
        self._open = type(block)
        self._open_id = item_id(block, index, self._options).encode()
        shown = begun_item(block, index, self._options)
        frame = self._event("response.output_item.added", output_index=index, item=shown)
        at = self._place(index, block)
        match block:
            case TextBlock() | RefusalBlock():
                return frame + self._event("response.content_part.added", **at, part=part_of(block))
            case ReasoningBlock() if not block.state:
                part = {"type": "summary_text", "text": ""}
                return frame + self._event("response.reasoning_summary_part.added", **at, part=part)
            case _:
                return frame

    def _ended(self, index: int, block: Block, *, is_last: bool) -> bytes:
        self._blocks.append(block)
        at = self._place(index, block)
        frames = b""
        match block:
            case TextBlock(text):
                frames += self._event("response.output_text.done", **at, text=text, logprobs=[])
                frames += self._event("response.content_part.done", **at, part=part_of(block))
            case RefusalBlock(text):
                frames += self._event("response.refusal.done", **at, refusal=text)
                frames += self._event("response.content_part.done", **at, part=part_of(block))
            case ToolCallBlock():
                told = {"name": block.name, "arguments": block.arguments_json}
                frames += self._event("response.function_call_arguments.done", **at, **told)
            case ReasoningBlock(text) if text:
                frames += self._event("response.reasoning_summary_text.done", **at, text=text)
                part = {"type": "summary_text", "text": text}
                frames += self._event("response.reasoning_summary_part.done", **at, part=part)
        status = item_status(self._finish_reason, is_last=is_last)
        item = whole_item(block, index, self._options, status)
        return frames + self._event("response.output_item.done", output_index=index, item=item)

    def _place(self, index: int, block: Block) -> Json:
        """Where in the response the text of an item stands."""
        at: Json = {"item_id": item_id(block, index, self._options), "output_index": index}
        if isinstance(block, ReasoningBlock):
            return {**at, "summary_index": 0}
        return at if isinstance(block, ToolCallBlock) else {**at, "content_index": 0}

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        told = {"type": kind, "sequence_number": self._number(), **fields}
        return EVENT % (kind.encode(), orjson.dumps(told))

    def _number(self) -> int:
        self._events += 1
        return self._events - 1
