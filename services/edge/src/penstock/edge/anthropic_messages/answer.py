"""A whole message. Pure: an answer in, bytes out."""

from __future__ import annotations

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.sequence import blocks_of
from penstock.edge.anthropic_messages.ending import Ending, stop_fields, usage_fields
from penstock.edge.anthropic_messages.shown import whole_block
from penstock.edge.json_fields import Json
from penstock.service.purity import pure


@pure
def message(
    answer: pb.GenerateResult, usage: common_pb2.Usage, message_id: str, model: str
) -> bytes:
    """The message of a finished answer."""
    shown = (whole_block(block) for block in blocks_of(answer))
    ending = Ending(
        answer.finish_reason,
        answer.stop_reason,
        answer.stop_sequence,
        answer.message.refusal,
        bool(answer.message.tool_calls),
    )
    fields = head(message_id, model)
    fields |= {"content": [block for block in shown if block is not None]}
    return orjson.dumps({**fields, **stop_fields(ending), "usage": usage_fields(usage)})


@pure
def head(message_id: str, model: str) -> Json:
    """What a message says before its content."""
    return {"id": message_id, "type": "message", "role": "assistant", "model": model}
