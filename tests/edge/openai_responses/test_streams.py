"""Streamed responses, held against the accumulator of OpenAI's own package."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.bench.wires.generated import random_answer, recorded
from penstock.bench.wires.playing import Played, play, played
from penstock.edge.answer_blocks.sequence import blocks_of
from penstock.edge.openai_responses.request import Context, task_of
from penstock.edge.openai_responses.response import final_response, head_of
from penstock.edge.openai_responses.stream import ResponseStream
from penstock.testkit.recordings import Recording, recordings

ANSWERED = [made for made in recordings() if made.is_stream and "reason" not in made.expect]
STATE_COMES_LATE = {"reasoning_details"}
"""Recordings whose opaque state follows the text: a stream shows it there."""
USAGE = common_pb2.Usage(input_tokens=30, output_tokens=4, cached_input_tokens=20)
ASKED = {"model": "m", "input": "go", "include": ["reasoning.encrypted_content"]}
HEAD = head_of(ASKED, "resp_1", 1_790_000_000, "m")
OF_THE_PACKAGE = ("parsed", "parsed_arguments")
"""Fields that the package adds."""


def events_of(chunks: Any, usage: common_pb2.Usage = USAGE) -> bytes:
    """The events of an answer."""
    stream = ResponseStream(HEAD)
    return stream.start() + b"".join(map(stream.piece, chunks)) + stream.end(usage)


def streamed(came: Played) -> bytes:
    assert came.result is not None
    return events_of(came.chunks, came.result.usage)


def whole(came: Played) -> Any:
    """The response of an answer."""
    assert came.result is not None
    answer = came.result.generate
    made = final_response(HEAD, blocks_of(answer), answer.finish_reason, came.result.usage)
    return orjson.loads(orjson.dumps(made))


def package_events(body: bytes) -> list[Any]:
    """The events that OpenAI's own package makes of a stream."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    transport = httpx2.MockTransport(answer)
    http_client = httpx2.Client(transport=transport)
    with (
        openai.OpenAI(api_key="k", http_client=http_client) as client,
        client.responses.stream(model="m", input="go") as stream,
    ):
        return list(stream)


def accumulated(body: bytes) -> Any:
    """The response that OpenAI's own package makes of a stream."""
    return without_additions(package_events(body)[-1].response.to_dict(mode="json"))


def without_additions(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: each for name, each in value.items() if name not in OF_THE_PACKAGE}
        return {name: without_additions(each) for name, each in kept.items()}
    return [without_additions(each) for each in value] if isinstance(value, list) else value


def parsed(body: bytes) -> list[Any]:
    frames = body.decode().removesuffix("\n\n").split("\n\n")
    return [json.loads(frame.partition("\ndata: ")[2]) for frame in frames if frame[0] != ":"]


def piece(**fields: Any) -> pb.GenerateChunk:
    return pb.GenerateChunk(**fields)


STOP = piece(finish_reason=pb.FINISH_REASON_STOP)


@pytest.mark.parametrize("made", ANSWERED, ids=str)
def test_the_package_accumulates_the_whole_response(made: Recording) -> None:
    came = played(made)
    if made.name in STATE_COMES_LATE:
        assert turn_of(accumulated(streamed(came))) == turn_of(whole(came))
    else:
        assert accumulated(streamed(came)) == whole(came)


def turn_of(response: Any) -> pb.Message:
    """The turn that a response becomes when its caller sends its items back."""
    return task_of({"model": "m", "input": response["output"]}, Context()).messages[0]


@pytest.mark.parametrize("made", [made for made in ANSWERED if made.name != "empty"], ids=str)
def test_a_response_that_is_sent_back_is_the_turn_that_it_was(made: Recording) -> None:
    came = played(made)
    assert came.result is not None
    turn = came.result.generate.message
    assert turn_of(whole(came)) == turn
    assert turn_of(accumulated(streamed(came))) == turn


@settings(max_examples=200, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    wire=st.sampled_from(["openai-chat", "anthropic-messages"]),
)
def test_any_split_into_chunks_gives_the_same_response(rng: Random, wire: str) -> None:
    made = recorded(wire, random_answer(rng), is_stream=True)
    came = play(made, [made.body])
    assert accumulated(streamed(came)) == whole(came)


@pytest.mark.parametrize("made", ANSWERED, ids=str)
def test_pieces_and_ends_of_an_item_say_the_same(made: Recording) -> None:
    deltas: dict[str, str] = {}
    for event in parsed(streamed(played(made))):
        if event["type"].endswith(".delta"):
            deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
        elif event["type"].endswith(("_text.done", "refusal.done", "arguments.done")):
            said = next(event[name] for name in ("text", "refusal", "arguments") if name in event)
            assert deltas.get(event["item_id"], "{}") == said


def test_events_come_in_the_order_of_the_protocol_and_are_numbered() -> None:
    call = pb.ToolCallDelta(index=0, id="call_1", name="f", arguments_json="{}")
    events = parsed(events_of([piece(delta="a"), piece(tool_calls=[call]), STOP]))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event.get("output_index") for event in events[2:-1]] == [0] * 6 + [1] * 4


def test_a_text_piece_has_all_that_clients_ask_of_it() -> None:
    delta = next(
        event
        for event in parsed(events_of([piece(delta="a"), STOP]))
        if event["type"] == "response.output_text.delta"
    )
    assert delta["item_id"] == "msg_1_0"
    assert (delta["output_index"], delta["content_index"], delta["logprobs"]) == (0, 0, [])


def test_the_end_of_a_call_has_its_name_and_arguments() -> None:
    call = pb.ToolCallDelta(index=0, id="call_1", name="f", arguments_json='{"a":1}')
    events = parsed(events_of([piece(tool_calls=[call]), STOP]))
    done = next(event for event in events if event["type"].endswith("arguments.done"))
    assert (done["name"], done["arguments"]) == ("f", '{"a":1}')


ENDINGS = [
    (pb.FINISH_REASON_LENGTH, "max_output_tokens"),
    (pb.FINISH_REASON_FILTERED, "content_filter"),
]


@pytest.mark.parametrize(("finish", "reason"), ENDINGS)
def test_an_answer_that_is_cut_is_incomplete(finish: Any, reason: str) -> None:
    last = package_events(events_of([piece(delta="a"), piece(finish_reason=finish)]))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == reason
    assert last.response.output[-1].status == "incomplete"


def test_a_failure_ends_the_stream_with_what_is_whole_of_it() -> None:
    stream = ResponseStream(HEAD)
    thought = pb.ReasoningDelta(index=0, text="hm", format="x")
    body = (
        stream.start() + stream.piece(piece(reasoning=[thought])) + stream.piece(piece(delta="a"))
    )
    last = package_events(body + stream.failure("server_error", "it broke"))[-1]
    assert last.type == "response.failed"
    assert (last.response.error.code, last.response.error.message) == ("server_error", "it broke")
    assert [item.type for item in last.response.output] == ["reasoning"]


def test_state_is_shown_only_to_those_who_ask_for_it() -> None:
    thought = pb.ReasoningDelta(index=0, text="hm", state=b"s", format="x")
    stream = ResponseStream(head_of({"model": "m", "input": "go"}, "resp_1", 1, "m"))
    body = stream.start() + stream.piece(piece(reasoning=[thought])) + stream.end(USAGE)
    assert b"encrypted_content" not in body
    assert b"encrypted_content" in events_of([piece(reasoning=[thought]), STOP])


def test_a_refusal_is_a_part_of_a_message() -> None:
    made = accumulated(
        events_of([piece(refusal="no"), piece(finish_reason=pb.FINISH_REASON_REFUSED)])
    )
    assert made["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]
    assert made["status"] == "completed"


def test_tokens_have_their_details() -> None:
    usage = common_pb2.Usage(
        input_tokens=100,
        output_tokens=7,
        cached_input_tokens=60,
        written_input_tokens=30,
        reasoning_tokens=3,
    )
    assert accumulated(events_of([piece(delta="a"), STOP], usage))["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 107,
    }


def test_a_silent_provider_gives_comments() -> None:
    assert ResponseStream(HEAD).piece(piece(keep_alive=True)).startswith(b":")


def test_text_cannot_break_out_of_its_event() -> None:
    said = 'a"}\n\nevent: response.completed\ndata: {}\r\n\u2028'
    made = accumulated(events_of([piece(delta=said), STOP]))
    assert made["output"][0]["content"][0]["text"] == said
