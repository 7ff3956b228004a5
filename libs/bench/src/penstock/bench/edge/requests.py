"""The requests: chats of one question, each with a number where it must not be in a cache."""

from __future__ import annotations

import json

import orjson
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.provider import CHAT

PATH = "/v1/chat/completions"
SYSTEM = "You answer in one sentence. You are precise, and you say so when you do not know."


def chat_body(question: str, *, model: str = CHAT, stream: bool = False) -> bytes:
    """The JSON of a chat."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body: dict[str, object] = {"model": model, "messages": messages, "max_completion_tokens": 64}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body)


def chat_request(
    client: HttpClient, question: str, *, model: str = CHAT, stream: bool = False
) -> bytes:
    """The bytes of a chat's request."""
    return client.post(PATH, chat_body(question, model=model, stream=stream))


def odd_bodies(count: int) -> list[bytes]:
    """Chats that a reader who writes them anew would change: white space, order of keys, escapes,
    numbers written in other ways, and fields that nobody knows.
    """
    return [_odd_body(number) for number in range(count)]


def _odd_body(number: int) -> bytes:
    question = f"What is {number}\u00b2? \u2013 a \U0001f9ee question\n\twith a tab"
    fields: dict[str, object] = {
        "x_unknown": {"number": number, "empty": {}, "list": [[], None, 1e-7]},
        "messages": [{"content": question, "role": "user"}],
        "temperature": 0.10,
        "model": CHAT,
        "max_completion_tokens": 16 + number % 5,
        "metadata": {"z": "1", "a": "2"},
    }
    if number % 3 == 0:
        fields = dict(reversed(fields.items()))
    text = json.dumps(
        fields,
        ensure_ascii=number % 2 == 0,
        indent=2 if number % 4 == 0 else None,
        separators=(" ,", " : ") if number % 4 == 1 else None,
    )
    return text.replace("1e-07", "1E-7").encode()
