"""The scripted provider by Anthropic's Messages. Pure: a request's body in, answers out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from penstock.bench.conformance.script import Json, Question, Reply
from penstock.testkit.raw_upstream import RawAnswer, whole

ENDINGS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tools": "tool_use",
    "refusal": "refusal",
}
SIGNATURE = "c2NyaXB0ZWQtc2lnbmF0dXJl"
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def question_of(body: Json) -> Question:
    """The request."""
    blocks = _blocks(body["messages"][-1]["content"])
    results = [block for block in blocks if block["type"] == "tool_result"]
    inner = [each for block in results for each in _blocks(block.get("content") or "")]
    choice = body.get("tool_choice") or {}
    form = (body.get("output_config") or {}).get("format") or {}
    custom = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    return Question(
        prompt=" ".join(each["text"] for each in [*blocks, *inner] if each["type"] == "text"),
        images=sum(each["type"] == "image" for each in [*blocks, *inner]),
        is_result=bool(results),
        tools={tool["name"]: tool["input_schema"] for tool in custom},
        may_call=choice.get("type") != "none",
        required=choice.get("name", ""),
        form=form.get("schema"),
        stops=body.get("stop_sequences") or (),
        max_words=body["max_tokens"],
        thinks=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
    )


def _blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def answer(body: Json, reply: Reply) -> RawAnswer:
    """The answer, whole or as events."""
    usage = _usage(body, reply)
    message = {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _content(reply),
        "stop_reason": ENDINGS[reply.ending],
        "stop_sequence": reply.stop or None,
        "usage": usage,
    }
    if not body.get("stream"):
        return whole(message)
    return RawAnswer([_event(value) for value in _events(message, reply)])


def refusal(status: int) -> RawAnswer:
    """An error of the provider."""
    kind = ERRORS.get(status, "api_error")
    error = {"type": kind, "message": f"scripted {status}"}
    return whole({"type": "error", "error": error, "request_id": "req_scripted"}, status)


def _content(reply: Reply) -> list[Json]:
    blocks: list[Json] = []
    if reply.thought:
        blocks.append({"type": "thinking", "thinking": reply.thought, "signature": SIGNATURE})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    blocks += [
        {"type": "tool_use", "id": f"toolu_scripted{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(reply.calls)
    ]
    return blocks


def _events(message: Json, reply: Reply) -> Iterator[Json]:
    begun: Json = {"content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**message, **begun}}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        empty, deltas = _streamed(block, reply)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {key: message[key] for key in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": end, "usage": message["usage"]}
    yield {"type": "message_stop"}


def _streamed(block: Json, reply: Reply) -> tuple[Json, list[Json]]:
    """A block as it begins, and what is added to it."""
    if block["type"] == "text":
        added = [{"type": "text_delta", "text": word} for word in reply.words]
        return {"type": "text", "text": ""}, added
    if block["type"] == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [thought, signed]
    text = json.dumps(block["input"])
    pieces = [piece for piece in (text[:4], text[4:]) if piece]
    added = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return {**block, "input": {}}, added


def _event(value: Json) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def _usage(body: Json, reply: Reply) -> Json:
    return {
        "input_tokens": len(json.dumps(body["messages"])) // 4 + 1,
        "output_tokens": reply.tokens + len(reply.thought.split()),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
