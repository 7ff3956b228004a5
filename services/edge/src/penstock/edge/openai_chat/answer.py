"""A finished answer as a chat completion. Pure: values in, bytes out."""

from __future__ import annotations

from typing import Any

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json
from penstock.edge.wire import Identity
from penstock.service.purity import pure

FINISHES = {
    pb.FINISH_REASON_UNSPECIFIED: "stop",
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_FILTERED: "content_filter",
    pb.FINISH_REASON_REFUSED: "stop",
    pb.FINISH_REASON_PAUSED: "stop",
}


@pure
def completion(result: pb.GenerateResult, usage: common_pb2.Usage, identity: Identity) -> bytes:
    """The body of a chat completion."""
    message = result.message
    choice = {
        "index": 0,
        "message": _message(message),
        "logprobs": logprobs_of(result.logprobs) if result.logprobs else None,
        "finish_reason": finish_of(
            result.finish_reason,
            has_calls=bool(message.tool_calls),
            has_refusal=bool(message.refusal),
        ),
    }
    head = {**head_of(identity), "object": "chat.completion"}
    return orjson.dumps({**head, "choices": [choice], "usage": usage_of(usage)})


@pure
def head_of(identity: Identity) -> Json:
    """What every object of an answer says of it."""
    return {
        "id": f"chatcmpl-{identity.number}",
        "created": identity.created_s,
        "model": identity.model,
    }


@pure
def finish_of(reason: pb.FinishReason, *, has_calls: bool, has_refusal: bool) -> str:
    """Why an answer ended. One that asks for calls ended for them, whatever the provider said:
    clients look at nothing else. A refusal that the provider gave no words of its own for would
    look like an answer, so it is `content_filter`.
    """
    if reason == pb.FINISH_REASON_REFUSED and not has_refusal:
        return "content_filter"
    stopped = reason in (pb.FINISH_REASON_STOP, pb.FINISH_REASON_UNSPECIFIED)
    return "tool_calls" if has_calls and stopped else FINISHES[reason]


@pure
def usage_of(usage: common_pb2.Usage) -> Json:
    """The counts of tokens."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.written_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


@pure
def logprobs_of(tokens: Any) -> Json:
    """The log-probabilities of tokens."""
    return {"content": [_token_logprob(token) for token in tokens], "refusal": None}


def _token_logprob(token: pb.TokenLogprob) -> Json:
    alternatives = [_scored(each) for each in token.alternatives]
    return {**_scored(token.chosen), "top_logprobs": alternatives}


def _scored(token: pb.ScoredToken) -> Json:
    utf8 = list(token.utf8) if token.utf8 else None
    return {"token": token.token, "logprob": token.logprob, "bytes": utf8}


def _message(message: pb.Message) -> Json:
    text = message.content or "".join(part.text for part in message.parts)
    shown: Json = {
        "role": "assistant",
        "content": text if text or not message.tool_calls else None,
        "refusal": message.refusal or None,
    }
    reasoning = "".join(block.text for block in message.reasoning)
    if reasoning:
        shown["reasoning_content"] = reasoning
    if message.tool_calls:
        shown["tool_calls"] = [_call(call) for call in message.tool_calls]
    return {**extra_of(message.extra_json), **shown}


def _call(call: pb.ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments_json}
    return {**extra_of(call.extra_json), "id": call.id, "type": "function", "function": function}


@pure
def extra_of(extra_json: str) -> Json:
    """What a provider added, to be seen by it again; empty for nothing."""
    extra = orjson.loads(extra_json) if extra_json else {}
    return extra if isinstance(extra, dict) else {}
