"""Anthropic's Messages as a wire of the edge: bodies in, bodies, events and errors out."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.wire import AnthropicMessages
from penstock.edge.wire import Asked, BadRequest, Failure, FailureKind, Identity

BODY: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "go " * 200}],
    "metadata": {"user_id": "u"},
}
WIRE = AnthropicMessages()
IDENTITY = Identity("abc123", 1_790_000_000, "claude-x")
USAGE = common_pb2.Usage(input_tokens=5, output_tokens=2)


def read(**fields: Any) -> Asked:
    return WIRE.read(orjson.dumps({**BODY, **fields}), {})


def test_a_body_becomes_what_was_asked() -> None:
    asked = read(stream=True)
    assert (asked.model, asked.streams, asked.ignored) == ("claude-x", True, ("metadata",))
    assert asked.task.max_tokens == 9


@pytest.mark.parametrize("fields", [{"model": None}, {"model": ""}, {"stream": "yes"}])
def test_a_body_without_a_model_or_with_a_wrong_stream_is_refused(fields: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == next(iter(fields))


def test_metadata_is_for_the_edge() -> None:
    assert read(metadata={"user_id": "u", "n": 3}).metadata == {"user_id": "u"}


def test_a_whole_answer_is_a_message() -> None:
    result = pb.GenerateResult(finish_reason=pb.FINISH_REASON_STOP)
    result.message.content = "hello"
    message = orjson.loads(WIRE.whole(result, USAGE, read(), IDENTITY))
    assert (message["id"], message["model"]) == ("msg_abc123", "claude-x")
    assert message["content"] == [{"type": "text", "text": "hello"}]


def test_a_stream_begins_with_an_estimate_and_ends_with_what_was_counted() -> None:
    stream = WIRE.events(read(), IDENTITY)
    start = orjson.loads(stream.start().split(b"data: ")[1])
    assert start["message"]["usage"]["input_tokens"] > 50
    stream.piece(pb.GenerateChunk(delta="a", finish_reason=pb.FINISH_REASON_STOP))
    assert b'"input_tokens":5' in stream.end(USAGE)


def test_a_silent_stream_gives_pings() -> None:
    assert WIRE.events(read(), IDENTITY).keep_alive().startswith(b"event: ping\n")


def test_tokens_are_counted_without_a_length() -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    asked = WIRE.read_count(orjson.dumps(body), {})
    assert orjson.loads(WIRE.count(asked))["input_tokens"] > 50


ERRORS = [
    (FailureKind.INVALID, 400, "invalid_request_error"),
    (FailureKind.UNAUTHENTICATED, 401, "authentication_error"),
    (FailureKind.NO_BUDGET, 402, "billing_error"),
    (FailureKind.FORBIDDEN, 403, "permission_error"),
    (FailureKind.NOT_FOUND, 404, "not_found_error"),
    (FailureKind.TOO_LARGE, 413, "request_too_large"),
    (FailureKind.RATE_LIMITED, 429, "rate_limit_error"),
    (FailureKind.INTERNAL, 500, "api_error"),
    (FailureKind.TIMED_OUT, 504, "timeout_error"),
    (FailureKind.OVERLOADED, 529, "overloaded_error"),
]


@pytest.mark.parametrize(("kind", "status", "name"), ERRORS)
def test_each_failure_has_its_status_and_type(kind: FailureKind, status: int, name: str) -> None:
    got, body = WIRE.error(Failure(kind, "why"), "req_1")
    expected = {"type": "error", "error": {"type": name, "message": "why"}, "request_id": "req_1"}
    assert (got, orjson.loads(body)) == (status, expected)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_is_an_error(kind: FailureKind) -> None:
    assert 400 <= WIRE.error(Failure(kind, "why"), "")[0] < 600


def test_a_failure_of_a_stream_is_an_event() -> None:
    frame = WIRE.events(read(), IDENTITY).failure(Failure(FailureKind.OVERLOADED, "a\n\nb"))
    assert frame.startswith(b"event: error\ndata: ")
    assert frame.count(b"\n\n") == 1
    assert orjson.loads(frame.split(b"data: ")[1])["error"]["type"] == "overloaded_error"
