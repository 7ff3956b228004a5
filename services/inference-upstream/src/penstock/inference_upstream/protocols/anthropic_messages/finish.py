"""Why a message ended. Pure: a provider's word in, an ending out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import Ending, GrowingAnswer
from penstock.inference_upstream.protocols.json_values import text_of
from penstock.inference_upstream.protocols.openai_chat.finish import OPERATORS, unknown_finish
from penstock.inference_upstream.switches import Switches

STOP_REASONS = {
    "end_turn": pb.FINISH_REASON_STOP,
    "stop_sequence": pb.FINISH_REASON_STOP,
    "max_tokens": pb.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": pb.FINISH_REASON_LENGTH,
    "tool_use": pb.FINISH_REASON_TOOL_CALLS,
    "pause_turn": pb.FINISH_REASON_PAUSED,
    "refusal": pb.FINISH_REASON_REFUSED,
}
"""Meanings of stop reasons. Any other word is a failure."""


def ending_of(ended: dict[str, Any], answer: GrowingAnswer, switches: Switches) -> Ending:
    """How a message ended.

    Args:
        ended: the object with `stop_reason` and `stop_sequence`.

    Raises:
        Fault: UPSTREAM_ERROR for a word that is not known.
        TypeError: a field is no text.
    """
    word = ended["stop_reason"]
    reason = OPERATORS.get(switches.finish_reasons.get(str(word), ""))
    reason = reason or STOP_REASONS.get(str(word))
    if reason is None or not isinstance(word, str):
        raise unknown_finish(word)
    if reason == pb.FINISH_REASON_STOP and answer.tool_calls:
        reason = pb.FINISH_REASON_TOOL_CALLS
    if reason == pb.FINISH_REASON_TOOL_CALLS and not answer.tool_calls:
        reason = pb.FINISH_REASON_STOP
    return Ending(reason, word, text_of(ended.get("stop_sequence")))
