"""Why an answer ended and what it took, as this protocol says it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json
from penstock.service.purity import pure

CONTEXT_WINDOW = "model_context_window_exceeded"
STOP_REASONS = {
    pb.FINISH_REASON_UNSPECIFIED: "end_turn",
    pb.FINISH_REASON_STOP: "end_turn",
    pb.FINISH_REASON_LENGTH: "max_tokens",
    pb.FINISH_REASON_TOOL_CALLS: "tool_use",
    pb.FINISH_REASON_FILTERED: "refusal",
    pb.FINISH_REASON_REFUSED: "refusal",
    pb.FINISH_REASON_PAUSED: "pause_turn",
}
REFUSALS = (pb.FINISH_REASON_FILTERED, pb.FINISH_REASON_REFUSED)


class Ending(NamedTuple):
    """Why an answer ended: fields as in the contract."""

    finish_reason: pb.FinishReason
    stop_reason: str = ""
    stop_sequence: str = ""
    refusal: str = ""
    has_calls: bool = False


@pure
def stop_fields(ending: Ending) -> Json:
    """`stop_reason`, `stop_sequence` and `stop_details`."""
    reason = STOP_REASONS[ending.finish_reason]
    if ending.finish_reason == pb.FINISH_REASON_STOP and ending.has_calls:
        reason = "tool_use"
    if ending.finish_reason == pb.FINISH_REASON_STOP and ending.stop_sequence:
        reason = "stop_sequence"
    if ending.finish_reason == pb.FINISH_REASON_LENGTH and ending.stop_reason == CONTEXT_WINDOW:
        reason = CONTEXT_WINDOW
    details: Json | None = None
    if ending.finish_reason in REFUSALS:
        details = {"type": "refusal", "category": None, "explanation": ending.refusal or None}
    return {
        "stop_reason": reason,
        "stop_sequence": ending.stop_sequence or None,
        "stop_details": details,
    }


@pure
def usage_fields(usage: common_pb2.Usage) -> Json:
    """The tokens. The protocol's `input_tokens` are those that were neither read from the
    provider's cache nor written to it; ours are all of them.
    """
    cached, written = usage.cached_input_tokens, usage.written_input_tokens
    fields: Json = {
        "input_tokens": max(0, usage.input_tokens - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return fields
