"""Streamed messages, held against the accumulator of Anthropic's own package and against the reader
that Penstock has for this protocol.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.bench.wires.generated import random_answer, recorded
from penstock.bench.wires.playing import Played, play, played
from penstock.edge.anthropic_messages.answer import message
from penstock.edge.anthropic_messages.request import task_of
from penstock.edge.anthropic_messages.stream import MessageStream
from penstock.testkit.recordings import Recording, recordings

ANSWERED = [made for made in recordings() if made.is_stream and "reason" not in made.expect]
OWN = [made for made in ANSWERED if made.wire == "anthropic-messages"]
STATE_COMES_LATE = {"reasoning_details"}
"""Recordings whose opaque state follows the text: a stream shows it there."""
ARGUMENTS_ARE_CUT = {"max_tokens", "arguments_cut"}
"""Recordings in which the length cut the arguments of a call."""
USAGE = common_pb2.Usage(input_tokens=30, output_tokens=4, cached_input_tokens=20)


def streamed(came: Played) -> bytes:
    """The events of an answer."""
    assert came.result is not None
    return events_of(came.chunks, came.result.usage)


def events_of(chunks: Any, usage: common_pb2.Usage = USAGE) -> bytes:
    stream = MessageStream("msg_1", "m", 3)
    return stream.start() + b"".join(map(stream.piece, chunks)) + stream.end(usage)


def whole(came: Played) -> Any:
    """The message of an answer."""
    assert came.result is not None
    return orjson.loads(message(came.result.generate, came.result.usage, "msg_1", "m"))


def client_for(body: bytes) -> anthropic.Anthropic:
    """Anthropic's client, before a server that streams these bytes."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    transport = httpx2.MockTransport(answer)
    return anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport))


def accumulated(body: bytes) -> Any:
    """The message that Anthropic's own package makes of a stream."""
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "go"}]}
    with client_for(body) as client, client.messages.stream(**asked) as stream:
        made = stream.get_final_message().to_dict(mode="json")
    for block in made["content"]:  # type: ignore[attr-defined]
        block.pop("parsed_output", None)
    return made


def parsed(body: bytes) -> list[tuple[str, Any]]:
    """The events with their names."""
    frames = body.decode().removesuffix("\n\n").split("\n\n")
    lines = [frame.split("\n") for frame in frames if frame]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in lines
    ]


def piece(**fields: Any) -> pb.GenerateChunk:
    return pb.GenerateChunk(**fields)


STOP = piece(finish_reason=pb.FINISH_REASON_STOP)


@pytest.mark.parametrize("made", ANSWERED, ids=str)
def test_the_package_accumulates_the_whole_message(made: Recording) -> None:
    came = played(made)
    if made.name in STATE_COMES_LATE:
        assert turn_of(accumulated(streamed(came))) == turn_of(whole(came))
    else:
        assert accumulated(streamed(came)) == whole(came)


def turn_of(shown: Any) -> pb.Message:
    """The turn that a message becomes when its caller sends it back."""
    asked = {"max_tokens": 9, "messages": [{"role": "assistant", "content": shown["content"]}]}
    return task_of(asked).messages[0]


WITH_WHOLE_CALLS = [made for made in ANSWERED if made.name not in ARGUMENTS_ARE_CUT]


@pytest.mark.parametrize("made", WITH_WHOLE_CALLS, ids=str)
def test_a_message_that_is_sent_back_is_the_turn_that_it_was(made: Recording) -> None:
    came = played(made)
    assert came.result is not None
    turn = came.result.generate.message
    turn.refusal = ""  # not part of the content
    assert comparable(turn_of(whole(came))) == comparable(turn)
    assert comparable(turn_of(accumulated(streamed(came)))) == comparable(turn)


def comparable(turn: pb.Message) -> pb.Message:
    """The turn with its JSON in one form, since clients write it anew."""
    for call in turn.tool_calls:
        call.arguments_json = sorted_json(call.arguments_json).decode()
    for block in turn.reasoning:
        if block.format == "anthropic.block":
            block.state = sorted_json(block.state)
    return turn


def sorted_json(text: str | bytes) -> bytes:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("made", OWN, ids=str)
def test_the_reader_of_this_protocol_finds_the_same_answer(made: Recording) -> None:
    came = played(made)
    again = played(Recording("own", made.wire, "", made.provider, True, {}, streamed(came)))
    assert came.result is not None
    assert again.result is not None
    came.result.generate.unconfirmed = False
    assert with_own_ids(again.result.generate) == with_own_ids(came.result.generate)
    assert again.result.usage == came.result.usage or came.result.usage.estimated


def with_own_ids(answer: pb.GenerateResult) -> pb.GenerateResult:
    for number, call in enumerate(answer.message.tool_calls):
        call.id = f"toolu_{number}"
    answer.stop_reason = ""
    return answer


@settings(max_examples=200, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    wire=st.sampled_from(["openai-chat", "anthropic-messages"]),
)
def test_any_split_into_chunks_gives_the_same_message(rng: Random, wire: str) -> None:
    made = recorded(wire, random_answer(rng), is_stream=True)
    came = play(made, [made.body])
    assert accumulated(streamed(came)) == whole(came)


def test_each_event_has_its_name_in_the_order_of_the_protocol() -> None:
    call = pb.ToolCallDelta(index=0, id="toolu_1", name="f", arguments_json="{}")
    events = parsed(events_of([piece(delta="a"), piece(tool_calls=[call]), STOP]))
    assert [name for name, _ in events] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]
    assert all(event["type"] == name for name, event in events)


def test_index_is_the_place_of_a_block_that_is_shown() -> None:
    refused = piece(refusal="no")
    events = parsed(events_of([piece(delta="a"), refused, piece(delta="b"), STOP]))
    started = [event["index"] for name, event in events if name == "content_block_start"]
    assert started == [0, 1]


def test_a_signature_is_one_delta_since_clients_overwrite_it() -> None:
    pieces = [pb.ReasoningDelta(index=0, text="hm", format="anthropic.thinking")]
    pieces += [pb.ReasoningDelta(index=0, state=part) for part in (b"c2", b"ln")]
    body = events_of([*(piece(reasoning=[each]) for each in pieces), piece(delta="a"), STOP])
    assert accumulated(body)["content"][0]["signature"] == "c2ln"
    assert body.count(b"signature_delta") == 1


def test_thinking_without_text_keeps_its_signature() -> None:
    hidden = pb.ReasoningDelta(index=0, state=b"c2ln", format="anthropic.thinking")
    shown = accumulated(events_of([piece(reasoning=[hidden]), STOP]))["content"]
    assert shown == [{"type": "thinking", "thinking": "", "signature": "c2ln"}]


def test_input_tokens_leave_out_those_of_the_cache() -> None:
    usage = common_pb2.Usage(
        input_tokens=100, output_tokens=7, cached_input_tokens=60, written_input_tokens=30
    )
    shown = accumulated(events_of([piece(delta="a"), STOP], usage))["usage"]
    assert shown["input_tokens"] == 10
    assert shown["cache_read_input_tokens"] == 60
    assert shown["cache_creation_input_tokens"] == 30


ENDINGS = [
    (piece(finish_reason=pb.FINISH_REASON_STOP), "end_turn", None),
    (piece(finish_reason=pb.FINISH_REASON_STOP, stop_sequence="END"), "stop_sequence", "END"),
    (piece(finish_reason=pb.FINISH_REASON_LENGTH), "max_tokens", None),
    (
        piece(finish_reason=pb.FINISH_REASON_LENGTH, stop_reason="model_context_window_exceeded"),
        "model_context_window_exceeded",
        None,
    ),
    (piece(finish_reason=pb.FINISH_REASON_PAUSED), "pause_turn", None),
    (piece(finish_reason=pb.FINISH_REASON_FILTERED), "refusal", None),
]


@pytest.mark.parametrize(("last", "reason", "sequence"), ENDINGS)
def test_why_a_message_stopped(last: pb.GenerateChunk, reason: str, sequence: str | None) -> None:
    made = accumulated(events_of([piece(delta="a"), last]))
    assert (made["stop_reason"], made["stop_sequence"]) == (reason, sequence)


def test_an_answer_that_stops_with_calls_asks_for_them() -> None:
    call = pb.ToolCallDelta(index=0, id="toolu_1", name="f", arguments_json="{}")
    assert accumulated(events_of([piece(tool_calls=[call]), STOP]))["stop_reason"] == "tool_use"


def test_a_refusal_explains_why_the_message_stopped() -> None:
    refused = piece(refusal="not this", finish_reason=pb.FINISH_REASON_REFUSED)
    made = accumulated(events_of([refused]))
    assert made["content"] == []
    assert made["stop_reason"] == "refusal"
    assert made["stop_details"]["explanation"] == "not this"


def test_a_message_has_one_start_and_a_silent_provider_gives_pings() -> None:
    body = events_of([piece(keep_alive=True), piece(delta="a"), STOP])
    assert [name for name, _ in parsed(body)].count("message_start") == 1
    assert parsed(body)[1] == ("ping", {"type": "ping"})


@pytest.mark.parametrize("call_id", ["call_abc", "toolu_01", "toolu_x_1", "a b:é", "toolu_b_eA"])
def test_identifiers_of_calls_have_the_protocols_form_and_come_back(call_id: str) -> None:
    call = pb.ToolCallDelta(index=0, id=call_id, name="f", arguments_json="{}")
    shown = accumulated(events_of([piece(tool_calls=[call]), STOP]))
    assert shown["content"][0]["id"].startswith("toolu_")
    assert shown["content"][0]["id"].replace("_", "").replace("-", "").isalnum()
    assert turn_of(shown).tool_calls[0].id == call_id


def test_text_cannot_break_out_of_its_event() -> None:
    said = 'a"}\n\nevent: message_stop\ndata: {}\r\n\u2028'
    assert accumulated(events_of([piece(delta=said), STOP]))["content"][0]["text"] == said


def test_names_of_tools_cannot_break_out_of_their_event() -> None:
    call = pb.ToolCallDelta(
        index=0, id="x\n\ndata: y", name="f\n\nevent: error", arguments_json="{}"
    )
    events = parsed(events_of([piece(tool_calls=[call]), STOP]))
    assert "error" not in [name for name, _ in events]
