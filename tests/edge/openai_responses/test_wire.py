"""OpenAI's Responses as a wire of the edge: bodies in, bodies, events and errors out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.openai_responses.request import Context, References
from penstock.edge.openai_responses.wire import NOTHING, OpenAIResponses, ResponseAsked
from penstock.edge.wire import BadRequest, Failure, FailureKind, Identity

BODY: dict[str, Any] = {"model": "gpt-x", "input": "go", "prompt_cache_key": "k", "user": "u"}
WIRE = OpenAIResponses()
IDENTITY = Identity("abc123", 1_790_000_000, "gpt-x")
USAGE = common_pb2.Usage(input_tokens=5, output_tokens=2)
BEFORE = [{"type": "message", "id": "msg_0_0", "role": "user", "content": "before"}]


def read(context: Context = NOTHING, **fields: Any) -> ResponseAsked:
    return WIRE.read(orjson.dumps({**BODY, **fields}), {}, context, keeps=True)


def answer() -> pb.GenerateResult:
    """An answer of reasoning and text."""
    made = pb.GenerateResult(finish_reason=pb.FINISH_REASON_STOP)
    made.message.content = "hello"
    made.message.reasoning.add(text="hm", state=b"s", format="x")
    return made


def test_a_body_becomes_what_was_asked() -> None:
    asked = read(stream=True)
    assert (asked.model, asked.streams, asked.ignored) == ("gpt-x", True, ("user",))
    assert asked.affinity == "k"


def test_a_body_says_what_it_needs_of_the_store() -> None:
    assert WIRE.needs({**BODY, "previous_response_id": "r"}) == References("r")


@pytest.mark.parametrize("fields", [{"model": 3}, {"stream": "yes"}, {"metadata": 3}])
def test_what_is_wrong_is_refused_before_the_answer_is_made(fields: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == next(iter(fields))


def test_a_whole_answer_is_a_response() -> None:
    response = orjson.loads(WIRE.whole(answer(), USAGE, read(), IDENTITY))
    assert (response["id"], response["model"]) == ("resp_abc123", "gpt-x")
    assert (response["status"], response["created_at"]) == ("completed", 1_790_000_000)
    assert [item["id"] for item in response["output"]] == ["rs_abc123_0", "msg_abc123_1"]


def test_what_is_kept_continues_the_conversation_with_all_state() -> None:
    asked = read(Context(BEFORE), previous_response_id="resp_0")
    kept = WIRE.kept(answer(), USAGE, asked, IDENTITY)
    assert kept is not None
    assert kept.context_ids == ("msg_0_0",)
    assert kept.inputs == 1
    later = read(Context([*BEFORE, *kept.own]), input="and now?")
    turns = later.task.messages
    assert [turn.content for turn in turns] == ["before", "go", "hello", "and now?"]
    assert turns[2].reasoning[0].state == b"s"


def test_a_stream_keeps_the_same_as_the_whole_answer() -> None:
    asked, whole = read(), answer()
    stream = WIRE.events(asked, IDENTITY)
    stream.start()
    thought = pb.ReasoningDelta(index=0, text="hm", state=b"s", format="x")
    stream.piece(pb.GenerateChunk(reasoning=[thought]))
    stream.piece(pb.GenerateChunk(delta="hello", finish_reason=pb.FINISH_REASON_STOP))
    last = stream.end(USAGE)
    assert stream.kept() == WIRE.kept(whole, USAGE, asked, IDENTITY)
    sent = orjson.loads(last.rsplit(b"data: ", 1)[1])["response"]
    assert sent == orjson.loads(WIRE.whole(whole, USAGE, asked, IDENTITY))


def test_a_response_that_was_not_fetched_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        read(previous_response_id="resp_0")
    assert caught.value.param == "previous_response_id"


def test_without_a_store_a_response_says_that_it_is_not_kept() -> None:
    asked = WIRE.read(orjson.dumps(BODY), {})
    assert WIRE.kept(answer(), USAGE, asked, IDENTITY) is None
    assert orjson.loads(WIRE.whole(answer(), USAGE, asked, IDENTITY))["store"] is False


def test_nothing_is_kept_where_the_caller_says_so() -> None:
    assert WIRE.kept(answer(), USAGE, read(store=False), IDENTITY) is None


ERRORS = [
    (FailureKind.INVALID, 400, None),
    (FailureKind.UNAUTHENTICATED, 401, "invalid_api_key"),
    (FailureKind.RATE_LIMITED, 429, "rate_limit_exceeded"),
    (FailureKind.NO_BUDGET, 429, "insufficient_quota"),
    (FailureKind.INTERNAL, 500, "internal_error"),
    (FailureKind.OVERLOADED, 503, "server_overloaded"),
    (FailureKind.TIMED_OUT, 504, "timeout"),
]


@pytest.mark.parametrize(("kind", "status", "code"), ERRORS)
def test_each_failure_has_its_status_and_code(kind: FailureKind, status: int, code: str) -> None:
    got, body = WIRE.error(Failure(kind, "why", param="input"), "req_1")
    error = orjson.loads(body)["error"]
    assert (got, error["code"], error["param"], error["message"]) == (status, code, "input", "why")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_is_an_error(kind: FailureKind) -> None:
    assert 400 <= WIRE.error(Failure(kind, "why"), "")[0] < 600


def test_a_failure_of_a_stream_ends_its_response() -> None:
    stream = WIRE.events(read(), IDENTITY)
    stream.start()
    frame = stream.failure(Failure(FailureKind.OVERLOADED, "why"))
    response = orjson.loads(frame.split(b"data: ")[1])["response"]
    assert (response["status"], response["error"]) == (
        "failed",
        {"code": "server_error", "message": "why"},
    )
