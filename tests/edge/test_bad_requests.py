"""What cannot be served is refused with the right status, the field, and nothing sent on."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from penstock.testkit.eventually import eventually
from penstock.testkit.scripted_answers import ScriptedAnswer
from running_edge import KEY, MODEL, OTHER_KEY, Edge, with_key

USER = [{"role": "user", "content": "hello"}]
CALL_FOR = {"type": "function", "function": {"name": "missing"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"functions": [{"name": "x"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": CALL_FOR}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"top_logprobs": 3}, "top_logprobs"),
    ],
)
async def test_a_field_that_is_wrong_is_named_and_nothing_is_sent(
    edge: Edge, fields: dict[str, Any], param: str
) -> None:
    answer = await edge.chat(**fields)
    assert answer.status == 400
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert not edge.provider.requests


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b'{"model": "\xff"}', b"\x00", b'{"a": NaN}']
)
async def test_a_body_that_is_no_json_object_is_refused(edge: Edge, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/rerank"):
        answer = await edge.send("POST", path, body)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "invalid_api_key"),
        ({"authorization": "Bearer nobody"}, 401, "invalid_api_key"),
        ({"authorization": f"Basic {KEY}"}, 401, "invalid_api_key"),
        ({"authorization": "Bearer k\u00e9y"}, 401, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY}", "x-api-key": OTHER_KEY}, 400, None),
        ({"x-api-key": KEY}, 200, None),
        ({"authorization": f"Bearer {KEY}", "x-api-key": KEY}, 200, None),
    ],
)
async def test_one_key_in_force_is_needed(
    edge: Edge, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = await edge.chat(headers=headers)
    assert answer.status == status, answer.body
    if status != 200:
        assert answer.json["error"]["code"] == code
        assert not edge.provider.requests


async def test_an_unknown_model_path_or_method_is_said(edge: Edge) -> None:
    model = await edge.chat(model="nobody")
    assert (model.status, model.json["error"]["code"]) == (404, "model_not_found")
    assert (await edge.send("GET", "/v1/nothing")).status == 404
    assert (await edge.send("GET", "/v1/chat/completions")).status == 405
    assert (await edge.send("GET", "/v1/models/nobody")).status == 404
    assert (await edge.send("GET", f"/v1/models/{MODEL}")).json["id"] == MODEL


@pytest.mark.parametrize(
    "header",
    [
        {"x_penstock_priority": "urgent"},
        {"x_penstock_max_cost": "much"},
        {"x_penstock_max_cost": "nan"},
        {"x_penstock_cache": "perhaps"},
        {"x_penstock_timeout_ms": "0"},
        {"x_penstock_run": "r" * 129},
    ],
)
async def test_a_header_of_ours_that_is_wrong_is_named(edge: Edge, header: dict[str, str]) -> None:
    answer = await edge.chat(headers=with_key(**header))
    assert answer.status == 400
    assert answer.json["error"]["param"] == next(iter(header)).replace("_", "-")
    assert not edge.provider.requests


async def test_what_cannot_be_embedded_is_refused(edge: Edge) -> None:
    for given in ([], [1, 2], [[1], [2]], "", [""], 5, ["x"] * 1_025):
        body = {"model": MODEL, "input": given}
        answer = await edge.send("POST", "/v1/embeddings", body)
        assert answer.status == 400
        assert answer.json["error"]["param"].startswith("input")


async def test_names_cannot_add_headers_or_events(edge: Edge) -> None:
    evil = "x\r\nset-cookie: a=1\n\ndata: {}"
    answer = await edge.chat(model=evil, stream=True, headers=with_key())
    assert answer.status in (400, 404)
    assert "set-cookie" not in answer.headers
    assert "set-cookie" not in (await edge.chat(**{evil: 1})).headers


async def raw(edge: Edge, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = edge.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    return reader, writer


HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(edge: Edge) -> None:
    reader, writer = await raw(edge, f"{HEAD}content-length: 99999999999\r\n\r\n{{".encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_a_body_that_does_not_come_ends_the_request_and_others_are_served(
    edge: Edge,
) -> None:
    slow = [await raw(edge, f"{HEAD}content-length: 100\r\n\r\n{{".encode()) for _ in range(4)]
    assert (await edge.chat(headers={"x-api-key": OTHER_KEY})).status == 200
    for reader, writer in slow:
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_large_headers_are_refused(edge: Edge) -> None:
    answer = await edge.chat(headers=with_key(**{f"x_h{n}": "v" * 4_000 for n in range(17)}))
    assert answer.status == 400


async def test_a_key_has_so_many_calls_at_once_and_others_are_not_touched(edge: Edge) -> None:
    edge.provider.first_token_s = 1.0
    waiting = [
        asyncio.create_task(edge.chat(messages=[{"role": "user", "content": str(number)}]))
        for number in range(4)
    ]
    await eventually(lambda: len(edge.provider.requests) == 4)
    refused = await edge.chat()
    assert refused.status == 429
    assert refused.headers["retry-after"]
    other = await edge.chat(headers={"x-api-key": OTHER_KEY})
    assert other.status == 200
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 4


async def test_a_provider_that_fails_has_a_status_and_no_retries_on_top(edge: Edge) -> None:
    edge.provider.faults.extend(["500"] * 8)
    answer = await edge.chat(stream=True)
    assert answer.status >= 500
    assert orjson.loads(answer.body)["error"]["type"] == "server_error"


async def test_a_client_that_reads_nothing_is_cut_off_and_its_call_ends(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("word " * 400_000)
    body = orjson.dumps({"model": MODEL, "messages": USER, "stream": True})
    head = f"{HEAD}content-length: {len(body)}\r\n\r\n".encode()
    _, writer = await raw(edge, head + body)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's own protocol
    await edge.provider.caller_left.wait()
    assert (await edge.chat(messages=[{"role": "user", "content": "others"}])).status == 200
    writer.close()
