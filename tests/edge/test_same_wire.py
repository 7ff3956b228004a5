"""A client and a provider of the same wire: no byte of either differs for the other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from penstock.edge.keep_alive import COMMENT
from penstock.testkit.raw_upstream import RawAnswer, RawUpstream, in_pieces
from penstock.testkit.recordings import recordings
from running_edge import MODEL, Edge, serving_edge, with_key

NOTE = b": x-penstock-receipt "
REFUSAL = (
    b'{ "error":{"message":"maximum context length is 8 tokens","type":"invalid_request_error",\n'
    b'"param":"messages","code":"context_length_exceeded","new":1} }'
)
WHOLE = (
    b'{ "id":"chatcmpl-9","object":"chat.completion","created":1,"model":"gpt-x","choices":[\n'
    b'{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],\n'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"new":{"a":1.0} }'
)


def asked(number: int, *, stream: bool, **fields: Any) -> bytes:
    """A body with blanks, escapes and a field that is not known here."""
    turns = [{"role": "user", "content": f"grüße {number}", "novel": [1.0, None]}]
    body: dict[str, Any] = {"novel": {"b": 1, "a": 2}, "messages": turns, "model": MODEL, **fields}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return b" " + json.dumps(body, ensure_ascii=bool(number % 2), indent=number % 3).encode()


@contextlib.asynccontextmanager
async def answered_by(tmp_path: Path) -> AsyncIterator[tuple[Edge, RawUpstream, list[RawAnswer]]]:
    """The whole way before a provider that gives the answers of a list, the last one again."""
    answers = [RawAnswer([WHOLE], 200, "application/json")]
    async with (
        RawUpstream(lambda _: answers[-1]) as provider,
        serving_edge(tmp_path, provider.url) as edge,
    ):
        yield edge, provider, answers


async def test_no_byte_differs_between_a_client_and_its_provider(tmp_path: Path) -> None:
    differing, compared = [], 0
    streams = [
        made
        for made in recordings()
        if made.wire == "openai-chat" and made.is_stream and "reason" not in made.expect
    ]
    async with answered_by(tmp_path) as (edge, provider, answers):
        for number in range(100):
            made = streams[number % len(streams)] if number % 2 else None
            body = asked(number, stream=made is not None)
            if made is None:
                answers.append(RawAnswer([WHOLE], 200, "application/json"))
            else:
                answers.append(RawAnswer(in_pieces(made.body, 13 + number)))
            answer = await edge.send("POST", "/v1/chat/completions", body)
            came, note, _ = answer.body.partition(NOTE)
            came = came.replace(COMMENT, b"")  # Sent before the first piece where that is late.
            compared += 1
            expected = WHOLE if made is None else made.body
            if came != expected or bool(note) is (made is None):
                differing.append(f"answer {number} {made}: {answer.status} {came[-80:]!r}")
            if provider.requests[-1].raw != body:
                differing.append(f"request {number}")
    assert compared == 100
    assert differing == []


async def test_a_refusal_keeps_the_providers_words(tmp_path: Path) -> None:
    async with answered_by(tmp_path) as (edge, _, answers):
        answers.append(RawAnswer([REFUSAL], 400, "application/json"))
        for stream in (False, True):
            body = asked(1, stream=stream)
            answer = await edge.send("POST", "/v1/chat/completions", body)
            assert (answer.status, answer.body) == (400, REFUSAL)


LENGTH, OPTIONS = b'"max_tokens"', b'"stream_options":{"include_usage":true},'


def plainly(*, stream: bool, **fields: Any) -> bytes:
    """A body as most clients send it: an old name of the length, no word of usage."""
    turns = [{"role": "user", "content": "grüße"}]
    body = {"messages": turns, "model": MODEL, "max_tokens": 7, "stream": stream, **fields}
    return b"\n" + json.dumps(body, ensure_ascii=False, indent=1).encode()


async def test_the_old_length_and_a_stream_without_usage_pass_as_bytes(tmp_path: Path) -> None:
    shown = [b'data: {"id":"c", "choices":[{"index":0,"delta":{"content":"yes"}}],"usage":null}']
    shown += [b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}']
    usage = [b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}']
    done = [b"data: [DONE]", b""]
    async with answered_by(tmp_path) as (edge, provider, answers):
        answer = await edge.send("POST", "/v1/chat/completions", plainly(stream=False))
        assert answer.body == WHOLE
        renamed = plainly(stream=False).replace(LENGTH, b'"max_completion_tokens"')
        assert provider.requests[-1].raw == renamed
        for size in (1, 9, 1_000):
            came = b"\n\n".join([*shown, *usage, *done])
            answers.append(RawAnswer(in_pieces(came, size)))
            body = plainly(stream=True, user=str(size))
            answer = await edge.send("POST", "/v1/chat/completions", body)
            events, note, _ = answer.body.partition(NOTE)
            assert events.replace(COMMENT, b"") == b"\n\n".join([*shown, *done])
            assert note
            renamed = body.replace(LENGTH, b'"max_completion_tokens"')
            assert provider.requests[-1].raw == renamed.replace(b"{", b"{" + OPTIONS, 1)
            receipt = answer.body.partition(NOTE)[2].partition(b";")[0].removeprefix(b"id=")
            kept = await edge.send("GET", f"/v1/receipts/{receipt.decode()}")
            assert kept.json["usage"] == {"input_tokens": "3", "output_tokens": "1"}


async def test_what_the_bytes_do_not_say_is_translated(tmp_path: Path) -> None:
    async with answered_by(tmp_path) as (edge, provider, _):
        body = asked(2, stream=False, max_tokens=5, max_completion_tokens=None)
        answer = await edge.send("POST", "/v1/chat/completions", body)
    assert provider.requests[-1].body["max_completion_tokens"] == 5
    assert answer.json["id"] != "chatcmpl-9"
    assert answer.json["choices"][0]["message"]["content"] == "yes"


async def test_headers_of_an_account_stay_here(tmp_path: Path) -> None:
    async with answered_by(tmp_path) as (edge, provider, _):
        headers = {"openai-beta": "b=1", "openai-organization": "org-mine", "cookie": "c=1"}
        sent = with_key() | headers
        await edge.send("POST", "/v1/chat/completions", asked(3, stream=False), sent)
    seen = provider.requests[-1].headers
    assert seen["openai-beta"] == "b=1"
    assert not {"openai-organization", "cookie", "authorization"} & seen.keys()
