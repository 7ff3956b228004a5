"""Bodies with images: what fits is served by every way, what does not is refused, and what one key
can make a process hold is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from penstock.edge.json_fields import Json
from penstock.tasks.wire_request import MAX_WIRE_BODY_BYTES
from penstock.testkit.eventually import eventually
from penstock.testkit.raw_upstream import RawAnswer, RawUpstream
from penstock.testkit.scripted_answers import ScriptedAnswer
from running_edge import KEY, MODEL, OTHER_KEY, Edge, serving_edge

MIB = 1 << 20
PATIENT = {"body_timeout_s": 60.0, "send_timeout_s": 60.0}
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"a cat"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":900,"completion_tokens":2,"total_tokens":902}}'
)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def image_url(size: int) -> str:
    """An image of chance whose address has about `size` bytes."""
    picture = random.Random(size).randbytes(size * 3 // 4)
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def seeing(size: int, **fields: Any) -> Json:
    """A question about an image."""
    image = {"type": "image_url", "image_url": {"url": image_url(size)}}
    content = [{"type": "text", "text": "what is this?"}, image]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


@pytest.mark.parametrize("apart", [False, True])
async def test_large_images_reach_the_provider_and_no_byte_differs(
    tmp_path: Path, apart: bool
) -> None:
    async with (
        RawUpstream(lambda _: RawAnswer([ANSWER], 200, "application/json")) as provider,
        serving_edge(tmp_path, provider.url, apart=apart, **PATIENT) as edge,
    ):
        for size in (5 * MIB, 8 * MIB, 30 * MIB):
            asked = seeing(size)
            body = orjson.dumps(asked)
            answer = await edge.send("POST", "/v1/chat/completions", body)
            assert answer.status == 200, answer.body[:300]
            assert answer.json["choices"][0]["message"]["content"] == "a cat"
            seen = provider.requests[-1]
            assert seen.body["messages"] == asked["messages"]
            assert (seen.raw == body) is (len(body) <= MAX_WIRE_BODY_BYTES)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_other_wires_take_large_images_too(tmp_path: Path, path: str) -> None:
    data = image_url(30 * MIB)
    if path == "/v1/messages":
        source = {"type": "base64", "media_type": "image/png", "data": data.partition(",")[2]}
        content: list[Json] = [{"type": "image", "source": source}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 5}
    else:
        content = [{"type": "input_image", "image_url": data}]
        body = {"input": [{"role": "user", "content": content}]}
    async with serving_edge(tmp_path, **PATIENT) as edge:
        edge.provider.script = lambda _: ScriptedAnswer("a cat")
        answer = await edge.send("POST", path, {"model": MODEL, **body})
        assert answer.status == 200, answer.body[:300]
        (part,) = edge.provider.requests[-1]["messages"][-1]["content"]
        assert part["image_url"]["url"] == data


async def begun(edge: Edge, *heads: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the head of a chat was sent."""
    host, _, port = edge.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ("POST /v1/chat/completions HTTP/1.1", "host: x", *heads, "", "")
    writer.write("\r\n".join(lines).encode())
    return reader, writer


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_the_limit_is_413(tmp_path: Path, is_chunked: bool) -> None:
    body = orjson.dumps(seeing(33 * MIB))
    length = "transfer-encoding: chunked" if is_chunked else f"content-length: {len(body)}"
    async with serving_edge(tmp_path, **PATIENT) as edge:
        reader, writer = await begun(edge, f"x-api-key: {KEY}", length)
        for start in range(0, len(body), MIB) if is_chunked else ():
            piece = body[start : start + MIB]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        assert b" 413 " in await reader.readline()
        await closed(writer)
        assert (await edge.chat()).status == 200


@pytest.mark.threat("one key fills the memory with large requests")
async def test_large_bodies_of_one_key_are_bounded_and_others_are_served(tmp_path: Path) -> None:
    bounds = {"max_key_body_bytes": 10 * MIB, "max_bodies_bytes": 14 * MIB}
    async with serving_edge(tmp_path, **bounds, **PATIENT) as edge:
        edge.provider.script = lambda _: ScriptedAnswer("a cat")
        edge.provider.first_token_s = 2.0
        first = asyncio.create_task(edge.chat(**seeing(6 * MIB)))
        await eventually(lambda: len(edge.provider.requests) == 1)
        own = await edge.chat(**seeing(5 * MIB))
        assert (own.status, own.json["error"]["type"]) == (429, "rate_limit_error")
        assert own.headers["retry-after"]
        other = {"x-api-key": OTHER_KEY}
        in_all = await edge.chat(other, **seeing(9 * MIB))
        assert (in_all.status, in_all.headers["x-should-retry"]) == (503, "true")
        edge.provider.first_token_s = 0.0
        assert (await edge.chat(other, **seeing(5 * MIB))).status == 200
        assert (await first).status == 200
        assert (await edge.chat(**seeing(9 * MIB))).status == 200


@pytest.mark.threat("large bodies of unknown keys")
async def test_a_large_body_of_an_unknown_key_is_not_read(edge: Edge) -> None:
    reader, writer = await begun(edge, "x-api-key: nobody", f"content-length: {30 * MIB}")
    writer.write(b"{")
    assert b" 401 " in await reader.readline()
    await closed(writer)
