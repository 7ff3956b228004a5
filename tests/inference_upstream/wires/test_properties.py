"""What holds for every answer: a stream says the same as the whole, in whatever pieces, and damage
is never an error of ours nor an answer that is kept.
"""

from __future__ import annotations

import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bench.wires.corpus import generated_failure, split_at_random
from penstock.bench.wires.generated import random_answer, recorded
from penstock.bench.wires.mutations import MUTATIONS
from penstock.bench.wires.playing import Played, play, played, read
from penstock.inference_upstream.protocols.event_stream import EventStream
from penstock.testkit.recordings import Recording, recordings

WIRES = st.sampled_from(["openai-chat", "anthropic-messages"])
RANDOMS = st.randoms(use_true_random=False)
PROVIDERS = {"openai-chat": "openai", "anthropic-messages": "anthropic"}
MANY = settings(max_examples=150, deadline=None)


@MANY
@given(wire=WIRES, rng=RANDOMS)
def test_a_stream_split_at_random_says_the_same_as_the_whole_answer(wire: str, rng: Random) -> None:
    assert generated_failure(wire, random_answer(rng), rng) == ""


@MANY
@given(wire=WIRES, rng=RANDOMS, mutation=st.sampled_from(MUTATIONS))
def test_damage_gives_a_reason_or_an_answer_that_is_not_kept(wire, rng, mutation) -> None:  # type: ignore[no-untyped-def]
    stream = recorded(wire, random_answer(rng), is_stream=True)
    right = play(stream, [stream.body])
    body = mutation(stream.body, rng)
    if body is None:
        return
    damaged = play(stream, split_at_random(body, rng))
    assert not damaged.is_internal, damaged.fault
    assert not damaged.is_kept or said(damaged) == said(right)


def said(came: Played) -> object:
    """The answer itself."""
    return None if came.result is None else came.result.generate


@MANY
@given(made=st.sampled_from(recordings()), rng=RANDOMS)
def test_any_byte_of_a_recording_may_be_any_other(made: Recording, rng: Random) -> None:
    if not made.body:
        return
    at = rng.randrange(len(made.body))
    body = made.body[:at] + bytes([rng.randrange(256)]) + made.body[at + 1 :]
    damaged = play(made, [body]) if made.is_stream else read(made, body)
    assert not damaged.is_internal, damaged.fault


@MANY
@given(wire=WIRES, body=st.binary(max_size=200))
def test_nonsense_is_never_an_error_of_ours(wire: str, body: bytes) -> None:
    for data in (body, b"data: " + body + b"\n\n", b'data: {"choices":[' + body + b"]}\n\n"):
        made = Recording("nonsense", wire, "", PROVIDERS[wire], True, {}, data)
        assert not played(made).is_internal
        assert not read(made, data).is_internal


KEYS = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "index", "id", "type"),
    *("usage", "error", "text", "thinking", "name", "arguments", "stop_reason", "content_block"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
EVENTS = ["message_start", "content_block_start", "content_block_delta", "message_delta", "error"]


@MANY
@given(wire=WIRES, values=st.lists(JSON, max_size=4), kind=st.sampled_from(EVENTS))
def test_json_of_any_shape_is_never_an_error_of_ours(  # type: ignore[no-untyped-def]
    wire, values, kind
) -> None:
    dumped = [
        json.dumps({"type": kind, **value} if isinstance(value, dict) else value)
        for value in values
    ]
    body = "".join(f"data: {each}\n\n" for each in dumped).encode()
    made = Recording("shapes", wire, "", PROVIDERS[wire], True, {}, body + b"data: [DONE]\n\n")
    assert not played(made).is_internal
    for each in dumped:
        assert not read(made, each.encode()).is_internal


@MANY
@given(lines=st.lists(st.sampled_from(["data: a", "data:b", "event: x", ": c", "", "id: 1"])))
def test_events_do_not_depend_on_line_ends_or_pieces(lines: list[str]) -> None:
    expected = None
    for end in ("\n", "\r", "\r\n"):
        body = end.join([*lines, "data: z", "", ""]).encode()
        for size in (1, 2, len(body)):
            stream = EventStream()
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            found = [event for piece in pieces for event in stream.feed(piece)] + stream.end()
            expected = expected or found
            assert found == expected
