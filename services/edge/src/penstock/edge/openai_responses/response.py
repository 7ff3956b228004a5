"""The response object. Pure: values in, JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import Block
from penstock.edge.json_fields import Json
from penstock.edge.openai_responses.options import ENCRYPTED_REASONING, included
from penstock.edge.openai_responses.output_items import (
    COMPLETED,
    INCOMPLETE,
    ItemOptions,
    whole_item,
)
from penstock.edge.openai_responses.request import is_stored, metadata_of
from penstock.service.purity import pure

PREFIX = "resp_"
SHOWN_AGAIN: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""Fields of the request that the response shows, with what they are where the request has none."""
INCOMPLETE_REASONS = {
    pb.FINISH_REASON_LENGTH: "max_output_tokens",
    pb.FINISH_REASON_FILTERED: "content_filter",
}


@dataclass(frozen=True)
class ResponseHead:
    """What a response says whatever becomes of it."""

    id: str
    created_unix_s: int
    model: str
    shown_again: Json
    has_state: bool
    """See ItemOptions."""
    is_stored: bool

    @property
    def item_options(self) -> ItemOptions:
        return ItemOptions(self.id.removeprefix(PREFIX), self.has_state)


@pure
def head_of(
    body: Json, response_id: str, created_unix_s: int, model: str, *, keeps: bool = True
) -> ResponseHead:
    """The head of the response to a request.

    Args:
        keeps: whether there is a store for responses.

    Raises:
        BadRequest: naming a field of the request that is wrong.
    """
    given = {name: body[name] for name in SHOWN_AGAIN if body.get(name) is not None}
    if given.get("text") == {}:
        del given["text"]
    elif "text" in given:
        given["text"] = {**SHOWN_AGAIN["text"], **given["text"]}
    shown_again = {**SHOWN_AGAIN, **given, "metadata": metadata_of(body)}
    has_state = ENCRYPTED_REASONING in included(body)
    return ResponseHead(
        response_id, created_unix_s, model, shown_again, has_state, keeps and is_stored(body)
    )


@pure
def response_object(
    head: ResponseHead,
    status: str,
    output: Sequence[Json] = (),
    usage: common_pb2.Usage | None = None,
    **more: Any,
) -> Json:
    """The response in a state; `more` are fields that the state has, such as `error`."""
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created_unix_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "output": list(output),
        "store": head.is_stored,
        **head.shown_again,
        "usage": None if usage is None else usage_fields(usage),
        **more,
    }


@pure
def final_response(
    head: ResponseHead,
    blocks: Sequence[Block],
    finish_reason: pb.FinishReason,
    usage: common_pb2.Usage,
) -> Json:
    """The response of a finished answer."""
    output = final_items(blocks, finish_reason, head.item_options)
    reason = INCOMPLETE_REASONS.get(finish_reason)
    if reason is None:
        return response_object(head, COMPLETED, output, usage)
    return response_object(head, INCOMPLETE, output, usage, incomplete_details={"reason": reason})


@pure
def final_items(
    blocks: Sequence[Block], finish_reason: pb.FinishReason, options: ItemOptions
) -> list[Json]:
    """The output of a finished answer; what an unfinished one ends with is incomplete."""
    last = len(blocks) - 1
    return [
        whole_item(block, index, options, item_status(finish_reason, is_last=index == last))
        for index, block in enumerate(blocks)
    ]


@pure
def item_status(finish_reason: pb.FinishReason, *, is_last: bool) -> str:
    """Whether an item is whole."""
    return INCOMPLETE if is_last and finish_reason in INCOMPLETE_REASONS else COMPLETED


@pure
def usage_fields(usage: common_pb2.Usage) -> Json:
    """The tokens; both totals contain their details."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.written_input_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
