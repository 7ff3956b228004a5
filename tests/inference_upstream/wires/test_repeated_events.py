"""Events that repeat the last one but for their text mean what they mean when read in full."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.bench.wires.playing import Played, play
from penstock.inference_upstream.protocols.repeated_events import RepeatedEvents
from penstock.testkit.recordings import Recording

MANY = settings(max_examples=200, deadline=None)
TEXTS = st.text(max_size=6) | st.sampled_from(
    ["", '"', "\\", '","', '"content":"', '"}', "\n\ndata: {}", "}", "\ud83d", "\ude00", "é🧮"]
)
RAW_TEXTS = st.sampled_from(
    [b"a", b"\\", b'\\"', b'"', b"\t", b"\xff", b"\\u00e9", b"\\ud83d", b'x","n":1,"y":"', b'\\",']
)
"""What stands between the quotes of a text, valid or not."""
FIELDS = st.dictionaries(
    st.sampled_from(["id", "model", "created", "obfuscation", "usage", "content", "text", "note"]),
    st.none() | st.integers(0, 9) | st.sampled_from(["m", "content", '"content":"a"']),
)
CHOICE_FIELDS = st.dictionaries(
    st.sampled_from(["logprobs", "finish_reason", "note"]), st.none(), max_size=2
)


def chat_event(text: str, fields: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    delta = {"content": text}
    return {**fields, "choices": [{"index": 0, "delta": delta, **choice}]}


def message_event(text: str, fields: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
    delta = {"type": "text_delta", "text": text}
    return {**fields, "type": "content_block_delta", "index": 0, "delta": delta}


def dumped(event: dict[str, Any], *, ascii_only: bool) -> bytes:
    return json.dumps(event, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


CHAT_END = [
    b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    b"[DONE]",
]
MESSAGE_START = [
    b'{"type":"message_start","message":{"model":"m","usage":{"input_tokens":3}}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
]
MESSAGE_END = [
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}',
    b'{"type":"message_stop"}',
]
WIRES = {
    "openai-chat": ("openai", chat_event, [], CHAT_END),
    "anthropic-messages": ("anthropic", message_event, MESSAGE_START, MESSAGE_END),
}


def unlike(events: list[bytes]) -> list[bytes]:
    """The same events, each with a field that no wire knows, so that none repeats another."""
    return [
        b'{"n%d":0,' % number + event[1:] if event.startswith(b"{") else event
        for number, event in enumerate(events)
    ]


def played(wire: str, events: list[bytes]) -> Played:
    provider = WIRES[wire][0]
    body = b"".join(b"data: " + event + b"\n\n" for event in events)
    return play(Recording("repeated", wire, "", provider, True, {}, body), [body])


def text_of(chunks: tuple[pb.GenerateChunk, ...]) -> str:
    return "".join(chunk.delta for chunk in chunks)


def assert_same(wire: str, middle: list[bytes]) -> None:
    _, _, start, end = WIRES[wire]
    events = [*start, *middle, *end]
    repeated, in_full = played(wire, events), played(wire, unlike(events))
    assert repeated.same_as(in_full)
    assert text_of(repeated.chunks) == text_of(in_full.chunks)


@MANY
@given(
    wire=st.sampled_from(list(WIRES)),
    texts=st.lists(TEXTS, min_size=2, max_size=6),
    fields=FIELDS,
    choice=CHOICE_FIELDS,
    ascii_only=st.booleans(),
)
def test_a_stream_is_the_same_where_no_event_repeats_another(  # type: ignore[no-untyped-def]
    wire, texts, fields, choice, ascii_only
) -> None:
    event = WIRES[wire][1]
    assert_same(wire, [dumped(event(t, fields, choice), ascii_only=ascii_only) for t in texts])


@MANY
@given(wire=st.sampled_from(list(WIRES)), raw=st.lists(RAW_TEXTS, min_size=1, max_size=5))
def test_what_is_no_json_string_is_refused_as_ever(wire: str, raw: list[bytes]) -> None:
    event = dumped(WIRES[wire][1]("SPLIT", {}, {}), ascii_only=True)
    before, behind = event.split(b"SPLIT")
    assert_same(wire, [before + text + behind for text in [b"a", *raw]])


@MANY
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b"])), min_size=1, max_size=8))
def test_the_last_model_and_the_usage_count_whatever_repeats(turns: list[Any]) -> None:
    told = {"usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    events = [
        chat_event("x", {"model": model, **(told if tells else {})}, {}) for tells, model in turns
    ]
    assert_same("openai-chat", [dumped(each, ascii_only=True) for each in events])


def delta_of(event: dict[str, Any]) -> dict[str, Any]:
    delta: dict[str, Any] = event["choices"][0]["delta"]
    return delta


@pytest.mark.parametrize("padding", [{}, {"obfuscation": "aB3"}])
def test_only_the_text_of_a_repeated_event_is_read(padding: dict[str, str]) -> None:
    first = {**chat_event("A", {"id": "c", "model": "m"}, {"finish_reason": None}), **padding}
    repeated = RepeatedEvents("content", delta_of)
    repeated.learn((json.dumps(first, separators=(",", ":")).encode(), b""), first)
    longer = {"obfuscation": "zZ9yY8"} if padding else {}
    second = {**chat_event('é"\n', {"id": "c", "model": "m"}, {"finish_reason": None}), **longer}
    data = json.dumps(second, separators=(",", ":")).encode()
    assert repeated.text_of((data, b"")) == 'é"\n'
    assert repeated.text_of((data, b"error")) is None
    assert repeated.text_of((data.replace(b'"m"', b'"n"'), b"")) is None
    assert repeated.text_of((data[:-1], b"")) is None


def test_an_event_whose_text_stands_in_doubt_is_no_template() -> None:
    doubtful = b'{"choices":[{"delta":{"content":"a"}}],"content":"a"}'
    repeated = RepeatedEvents("content", delta_of)
    repeated.learn((doubtful, b""), json.loads(doubtful))
    assert repeated.text_of((doubtful, b"")) is None


def test_a_text_that_comes_twice_in_one_object_is_no_template() -> None:
    twice = b'{"choices":[{"delta":{"content":"a","\\u0063ontent":"a"}}]}'
    repeated = RepeatedEvents("content", delta_of)
    repeated.learn((twice, b""), json.loads(twice))
    assert repeated.text_of((twice, b"")) is None


def test_a_stream_whose_events_never_repeat_is_no_longer_learned_from() -> None:
    repeated = RepeatedEvents("content", delta_of)
    for number in range(20):
        event = chat_event("x", {"id": str(number)}, {})
        repeated.learn((dumped(event, ascii_only=True), b""), event)
    assert repeated.text_of((dumped(event, ascii_only=True), b"")) is None
