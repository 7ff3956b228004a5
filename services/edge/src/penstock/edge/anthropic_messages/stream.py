"""A streamed message as server-sent events: message_start, then of each block its start, deltas and
stop, then message_delta and message_stop.

Clients dispatch on the `event:` line and append blocks in the order in which they begin, so `index`
is the place among the blocks that were shown. A signature is one delta, since clients overwrite it.
"""

from __future__ import annotations

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
from penstock.edge.anthropic_messages.answer import head
from penstock.edge.anthropic_messages.ending import Ending, stop_fields, usage_fields
from penstock.edge.anthropic_messages.shown import begun_block, is_thinking, signature_of

DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
)
BLOCK_START = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
)
BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
MESSAGE_START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
MESSAGE_DELTA = b'event: message_delta\ndata: {"type":"message_delta","delta":%b,"usage":%b}\n\n'
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
ERROR = b"event: error\ndata: %b\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
GROWS_BY: dict[type[Block], tuple[bytes, bytes]] = {
    TextBlock: (b"text_delta", b"text"),
    ToolCallBlock: (b"input_json_delta", b"partial_json"),
    ReasoningBlock: (b"thinking_delta", b"thinking"),
}
"""Types of deltas and their fields."""


class MessageStream:
    """The events of one message."""

    def __init__(self, message_id: str, model: str, input_tokens: int) -> None:
        """
        Args:
            input_tokens: an estimate, which the end corrects.
        """
        self._head = head(message_id, model)
        self._input_tokens = input_tokens
        self._blocks = BlockSequence()
        self._index = -1
        """Place of the block that is shown, among those that were."""
        self._open: type[Block] = TextBlock
        self._refusal: list[str] = []
        self._ending = Ending(pb.FINISH_REASON_UNSPECIFIED)
        self._has_calls = False

    def start(self) -> bytes:
        """The message without content."""
        usage = usage_fields(common_pb2.Usage(input_tokens=self._input_tokens))
        stops = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        return MESSAGE_START % orjson.dumps({**self._head, "content": [], **stops, "usage": usage})

    def piece(self, chunk: pb.GenerateChunk) -> bytes:
        """What a chunk adds."""
        if chunk.keep_alive:
            return PING
        frames = b"".join(map(self._frame, self._blocks.add(chunk)))
        if chunk.finish_reason:
            self._ending = Ending(chunk.finish_reason, chunk.stop_reason, chunk.stop_sequence)
        return frames

    def end(self, usage: common_pb2.Usage) -> bytes:
        """The end of the open blocks and of the message."""
        frames = b"".join(map(self._frame, self._blocks.finish()))
        ending = self._ending._replace(refusal="".join(self._refusal), has_calls=self._has_calls)
        told = orjson.dumps(stop_fields(ending)), orjson.dumps(usage_fields(usage))
        return frames + MESSAGE_DELTA % told + MESSAGE_STOP

    def _frame(self, event: Event) -> bytes:
        match event:
            case Grown(text=text):
                return self._grown(text)
            case Begun(block=block):
                return self._begun(block)
            case Ended(block=block):
                return self._ended(block)

    def _begun(self, block: Block) -> bytes:
        self._open = type(block)
        shown = begun_block(block)
        if shown is None:
            return b""
        self._has_calls = self._has_calls or isinstance(block, ToolCallBlock)
        self._index += 1
        return BLOCK_START % (self._index, orjson.dumps(shown))

    def _grown(self, text: str) -> bytes:
        if self._open is RefusalBlock:
            self._refusal.append(text)
            return b""
        kind, field = GROWS_BY[self._open]
        return DELTA % (self._index, kind, field, orjson.dumps(text))

    def _ended(self, block: Block) -> bytes:
        if isinstance(block, RefusalBlock):
            return b""
        signature = ""
        if isinstance(block, ReasoningBlock) and is_thinking(block):
            signature = signature_of(block)
        stop = BLOCK_STOP % self._index
        if not signature:
            return stop
        told = orjson.dumps(signature)
        return DELTA % (self._index, b"signature_delta", b"signature", told) + stop
