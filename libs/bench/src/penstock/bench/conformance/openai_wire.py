"""The scripted provider by OpenAI's Chat Completions. Pure: a request's body in, answers out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.bench.conformance.script import Json, Question, Reply
from penstock.testkit.raw_upstream import RawAnswer, events, whole

ENDINGS = {"stop": "stop", "length": "length", "stop_sequence": "stop", "refusal": "stop"}


def question_of(body: Json) -> Question:
    """The request."""
    last = body["messages"][-1]
    parts = _parts(last.get("content"))
    choice: Any = body.get("tool_choice")
    functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    stops = body.get("stop") or []
    return Question(
        prompt=" ".join(part["text"] for part in parts if part.get("type") == "text"),
        images=sum(part.get("type") == "image_url" for part in parts),
        is_result=last["role"] == "tool",
        tools={each["name"]: each.get("parameters") or {} for each in functions},
        may_call=choice != "none",
        required=choice["function"]["name"] if _names_one(choice) else "",
        form=_form(body.get("response_format") or {}),
        stops=[stops] if isinstance(stops, str) else stops,
        max_words=body.get("max_completion_tokens") or body.get("max_tokens") or 0,
        thinks=body.get("reasoning_effort") not in (None, "none"),
    )


def _parts(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _names_one(choice: Any) -> bool:
    return isinstance(choice, Mapping) and "function" in choice


def _form(given: Json) -> Json | None:
    if given.get("type") == "json_schema":
        schema: Json = given["json_schema"].get("schema") or {}
        return schema
    return {} if given.get("type") == "json_object" else None


def answer(body: Json, reply: Reply) -> RawAnswer:
    """The answer, whole or as events."""
    usage = _usage(body, reply)
    if not body.get("stream"):
        message = {"role": "assistant", **_content(reply), **_calls(reply)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _end(reply)}
        return whole({**_head(body), "choices": [choice], "usage": usage})
    chunks = [_chunk(body, delta) for delta in _deltas(reply)]
    chunks.append(_chunk(body, {}, _end(reply)))
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**_head(body), "choices": [], "usage": usage})
    return events(*chunks)


def refusal(status: int) -> RawAnswer:
    """An error of the provider."""
    error = {"message": f"scripted {status}", "type": "scripted_error", "param": None, "code": None}
    return whole({"error": error}, status)


def models(names: list[str]) -> RawAnswer:
    """The list of models."""
    rows = [{"id": name, "object": "model", "created": 1, "owned_by": "script"} for name in names]
    return whole({"object": "list", "data": rows})


def _head(body: Json) -> Json:
    kind = "chat.completion.chunk" if body.get("stream") else "chat.completion"
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1, "model": body["model"]}


def _end(reply: Reply) -> str:
    return "tool_calls" if reply.calls else ENDINGS[reply.ending]


def _content(reply: Reply) -> Json:
    refused = reply.ending == "refusal"
    said: Json = {"content": reply.text or None, "refusal": None}
    return {"content": None, "refusal": reply.text} if refused else said


def _calls(reply: Reply) -> Json:
    calls = [
        {"id": _call_id(number), "type": "function", "function": _function(name, arguments)}
        for number, (name, arguments) in enumerate(reply.calls)
    ]
    return {"tool_calls": calls} if calls else {}


def _call_id(number: int) -> str:
    return f"call_scripted{number}"


def _function(name: str, arguments: Json) -> Json:
    return {"name": name, "arguments": json.dumps(arguments)}


def _deltas(reply: Reply) -> list[Json]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    field = "refusal" if reply.ending == "refusal" else "content"
    deltas += [{field: word} for word in reply.words]
    for number, (name, arguments) in enumerate(reply.calls):
        text = json.dumps(arguments)
        function = {"name": name, "arguments": ""}
        begun = {"id": _call_id(number), "type": "function", "function": function}
        pieces = [text[:4], text[4:]]
        deltas.append({"tool_calls": [{"index": number, **begun}]})
        deltas += [
            {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
            for piece in pieces
            if piece
        ]
    return deltas


def _chunk(body: Json, delta: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**_head(body), "choices": [choice]}


def _usage(body: Json, reply: Reply) -> Json:
    asked = len(json.dumps(body["messages"])) // 4 + 1
    thought = len(reply.thought.split())
    answered = reply.tokens + thought
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
