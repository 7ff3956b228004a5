"""Why a chat completion ended. Pure: a provider's word in, an ending out."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import Ending, GrowingAnswer
from penstock.inference_upstream.protocols.cleaning import clean_word
from penstock.inference_upstream.protocols.faults import malformed
from penstock.inference_upstream.switches import Switches
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason

STOP, LENGTH = pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH
TOOL_CALLS, FILTERED = pb.FINISH_REASON_TOOL_CALLS, pb.FINISH_REASON_FILTERED
FINISH_REASONS = {
    "stop": STOP,
    "length": LENGTH,
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": FILTERED,
    # Words that servers pass on from other protocols.
    "eos": STOP,  # Together
    "eos_token": STOP,  # TGI
    "end_turn": STOP,  # Anthropic, through gateways
    "stop_sequence": STOP,  # Anthropic, TGI
    "complete": STOP,  # Cohere
    "max_tokens": LENGTH,  # Anthropic, Google, Cohere
    "model_length": LENGTH,  # Mistral
    "tool_use": TOOL_CALLS,  # Anthropic
    "tool_call": TOOL_CALLS,  # Cohere
    "safety": FILTERED,  # Google
    "recitation": FILTERED,
    "prohibited_content": FILTERED,
    "blocklist": FILTERED,
    "sensitive": FILTERED,  # Zhipu
}
"""Meanings of finish reasons, in lower case. Any other word is a failure: an answer that ended in
`abort` or `error` is not whole.
"""
OPERATORS = {"stop": STOP, "length": LENGTH, "tool_calls": TOOL_CALLS, "filtered": FILTERED}
"""Meanings that an operator may give to words."""


def ending_of(word: Any, stop: Any, answer: GrowingAnswer, switches: Switches) -> Ending:
    """How an answer ended.

    Args:
        word: the provider's finish reason.
        stop: vLLM's stop reason: the stop text that was met, the number of a token, or None.

    Raises:
        Fault: UPSTREAM_ERROR for a word that is not known; UPSTREAM_MALFORMED for an answer that
            is to have tool calls and has nothing.
    """
    known = OPERATORS.get(switches.finish_reasons.get(str(word), ""))
    reason = known or FINISH_REASONS.get(str(word).lower())
    if reason is None or not isinstance(word, str):
        raise unknown_finish(word)
    if reason == STOP and answer.tool_calls:
        reason = TOOL_CALLS  # clients skip the tools of an answer that has just stopped
    if reason == TOOL_CALLS and not answer.tool_calls:
        if not answer.texts:
            raise malformed("its tool calls are missing")
        reason = STOP
    if reason == STOP and answer.refusals:
        reason = pb.FINISH_REASON_REFUSED
    return Ending(reason, word, stop if isinstance(stop, str) else "")


def unknown_finish(word: Any) -> Fault:
    """The fault of an answer that ended in a word that is no end."""
    told = clean_word(word) if isinstance(word, str) else ""
    return unavailable(
        f"the upstream ended its answer for a reason that is no end{f' ({told})' if told else ''}; "
        "retry, or use another one",
        reason=Reason.UPSTREAM_ERROR,
    )
