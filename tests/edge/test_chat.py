"""Chat completions through the whole path: whole and as events, and what goes to the provider."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from penstock.testkit.scripted_answers import ScriptedAnswer
from running_edge import MODEL, Edge, with_key

TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "finds",
        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}},
    },
}


async def test_a_whole_answer_has_every_field_that_clients_read(edge: Edge) -> None:
    answer = await edge.chat()
    assert answer.status == 200
    body = answer.json
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == MODEL
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hello", "refusal": None}
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    assert "cache=" in answer.headers["x-penstock-receipt"]


async def test_events_join_to_the_answer(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("one two three")
    answer = await edge.chat(stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = answer.events
    assert done == "[DONE]"
    assert isinstance(usage, dict) and usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if isinstance(chunk, dict)]
    assert deltas[0]["role"] == "assistant"
    assert all("role" not in delta for delta in deltas[1:])
    assert "".join(delta.get("content") or "" for delta in deltas) == "one two three"
    last = chunks[-1]
    assert isinstance(last, dict) and last["choices"][0]["finish_reason"] == "stop"
    assert b": x-penstock-receipt id=" in answer.body


async def test_usage_is_told_only_when_asked_for(edge: Edge) -> None:
    answer = await edge.chat(stream=True)
    chunks = [each for each in answer.events if isinstance(each, dict)]
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_are_asked_for_and_come_back(edge: Edge, stream: bool) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("", tool_calls=(("find", '{"a": 1}'),))
    choice = {"type": "function", "function": {"name": "find"}}
    answer = await edge.chat(
        tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, stream=stream
    )
    sent = edge.provider.requests[-1]
    assert sent["tools"] == [TOOL]
    assert sent["tool_choice"] == choice
    assert sent["parallel_tool_calls"] is False
    call = _joined_call(answer.events) if stream else _only_call(answer.json)
    assert call["function"] == {"name": "find", "arguments": '{"a": 1}'}
    assert call["id"] and call["type"] == "function"


def _only_call(body: dict[str, Any]) -> dict[str, Any]:
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    return dict(call)


def _joined_call(events: list[Any]) -> dict[str, Any]:
    """As the SDK joins them: strings are appended, `index` and `type` overwritten."""
    call: dict[str, Any] = {"id": "", "function": {"name": "", "arguments": ""}}
    for event in events[:-1]:
        for piece in event["choices"][0]["delta"].get("tool_calls", ()):
            call["id"] += piece.get("id", "")
            call["type"] = piece.get("type", call.get("type"))
            for name, text in piece["function"].items():
                call["function"][name] += text
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    return call


async def test_what_the_caller_says_reaches_the_provider(edge: Edge) -> None:
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"},
    }
    conversation = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, image]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "user", "content": "so?"},
    ]
    schema = {"name": "s", "schema": {"type": "object", "properties": {"b": {}, "a": {}}}}
    answer = await edge.chat(
        messages=conversation,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=["END"],
        frequency_penalty=0.5,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    assert answer.status == 200, answer.body
    sent = edge.provider.requests[-1]
    assert [message["role"] for message in sent["messages"]][1:] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert sent["messages"][1]["content"][1] == image
    assert sent["messages"][2]["tool_calls"][0]["id"] == "c1"
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.5, 0.9, 3)
    assert sent["stop"] in ("END", ["END"])
    assert sent["frequency_penalty"] == 0.5
    assert sent["response_format"]["json_schema"]["schema"] == schema["schema"]
    assert 7 in (sent.get("max_completion_tokens"), sent.get("max_tokens"))


async def test_fields_without_effect_are_named(edge: Edge) -> None:
    answer = await edge.chat(user="u1", store=True, service_tier="auto", not_known=1, n=1)
    assert answer.status == 200
    ignored = answer.headers["x-penstock-ignored"].split(", ")
    assert sorted(ignored) == ["not_known", "service_tier", "store", "user"]


async def test_the_run_and_its_priority_come_from_headers_or_from_metadata(edge: Edge) -> None:
    by_header = await edge.chat(
        headers=with_key(x_penstock_run="r1", x_penstock_step="s1", x_penstock_priority="high")
    )
    receipt = await _receipt(edge, by_header.headers["x-penstock-receipt"])
    assert receipt["run_id"] == "r1"
    by_metadata = await edge.chat(metadata={"penstock_run": "r2", "topic": "x"})
    assert (await _receipt(edge, by_metadata.headers["x-penstock-receipt"]))["run_id"] == "r2"
    by_agent = await edge.chat(headers=with_key(x_claude_code_session_id="r3"))
    assert (await _receipt(edge, by_agent.headers["x-penstock-receipt"]))["run_id"] == "r3"


async def _receipt(edge: Edge, header: str) -> dict[str, Any]:
    fields = dict(field.split("=", 1) for field in header.split(";"))
    answer = await edge.send("GET", f"/v1/receipts/{fields['id']}")
    assert answer.status == 200
    return answer.json


async def test_a_receipt_is_not_shown_to_another_key(edge: Edge) -> None:
    header = (await edge.chat()).headers["x-penstock-receipt"]
    request_id = header.split(";")[0].removeprefix("id=")
    other = await edge.send(
        "GET", f"/v1/receipts/{request_id}", headers={"authorization": "Bearer psk-other"}
    )
    assert other.status == 404


async def test_a_client_that_leaves_cancels_the_provider(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("one two three")
    edge.provider.per_word_s = 30.0
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with edge.http.stream(
        "POST",
        f"{edge.url}/chat/completions",
        headers=with_key(),
        content=orjson.dumps(body),
    ) as response:
        await anext(aiter(response.aiter_stream()))
        await response.aclose()
    await edge.provider.caller_left.wait()


async def test_a_stream_that_is_long_in_coming_says_that_it_is_alive(edge: Edge) -> None:
    edge.provider.first_token_s = 0.7
    answer = await edge.chat(stream=True)
    assert answer.status == 200
    assert b": keep-alive\n\n" in answer.body
    assert answer.events[-1] == "[DONE]"


async def test_a_cut_stream_ends_in_an_error_that_clients_raise(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("one two three four")
    edge.provider.faults.append("cut")
    answer = await edge.chat(stream=True)
    assert answer.status == 200
    last = answer.events[-1]
    assert isinstance(last, dict)
    assert set(last["error"]) == {"message", "type", "param", "code"}
