"""What providers' errors mean, as they word them, and what of them reaches the caller."""

from __future__ import annotations

import json
from typing import Any

import pytest
from penstock.inference_upstream.protocols.faults import status_fault
from penstock.rpc.errors import Fault
from penstock.testkit.raw_upstream import RawAnswer, events, whole

from ..rig import asking, serving

NOW_UNIX_S = 1_000_000.0


def fault_of(status: int, body: Any, **headers: str) -> Fault:
    """The fault of a response; underscores in the names of headers become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status_fault(status, named, json.dumps(body).encode(), NOW_UNIX_S)


def openai(message: str, code: object = None, type_: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


def anthropic(type_: str, message: str) -> Any:
    return {"type": "error", "error": {"type": type_, "message": message}}


def google(code: int, status: str, message: str, *details: Any) -> Any:
    return [{"error": {"code": code, "status": status, "message": message, "details": details}}]


TOO_LONG = [
    (400, openai("This model's maximum context length is 8192 tokens.", "context_length_exceeded")),
    (400, openai("input (40000 tokens) is longer than the context length", 400)),
    (400, {"object": "error", "message": "The input is longer than the model's context length"}),
    (400, anthropic("invalid_request_error", "prompt is too long: 213000 tokens > 200000 maximum")),
    (413, anthropic("request_too_large", "Request exceeds the maximum size")),
    (400, google(400, "INVALID_ARGUMENT", "The input token count (2M) exceeds the maximum number")),
    (
        400,
        {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too large"}},
    ),
    (422, {"error": "Input validation error: `inputs` tokens + x must be <= 4096"}),
    (413, {}),
]
FILTERED = [
    (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    (400, openai("Your input was flagged as potentially violating our usage policy")),
    (400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate"}),
]
CREDENTIALS = [
    (401, openai("Incorrect API key provided: sk-abcdefgh****wxyz.", "invalid_api_key")),
    (401, anthropic("authentication_error", "invalid x-api-key")),
    (400, google(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"})),
    (403, {}),
]
BALANCE = [
    (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
    (400, anthropic("invalid_request_error", "Your credit balance is too low to access the API")),
    (402, {"error": {"message": "Insufficient Balance"}}),
    (402, {}),
]
NO_MODEL = [
    (404, openai("The model `gpt-z` does not exist", "model_not_found")),
    (403, openai("Project does not have access to model gpt-x", "model_not_found")),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment is gone"}}),
    (400, {"error": "model 'llama9' not found"}),
]
RATE = [
    (429, openai("Rate limit reached for requests", "rate_limit_exceeded", "requests")),
    (429, anthropic("rate_limit_error", "Number of request tokens has exceeded your limit")),
    (429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded")),
    (429, {}),
]
OVERLOADED = [
    (529, anthropic("overloaded_error", "Overloaded")),
    (503, google(503, "UNAVAILABLE", "The model is overloaded.")),
    (503, {}),
    (408, {}),
    (409, {}),
]
ERRORS = [
    (500, openai("The server had an error", None, "server_error")),
    (500, anthropic("api_error", "Internal server error")),
    (502, {}),
    (504, {}),
]
REFUSED = [
    (400, openai("Unsupported parameter: 'temperature'", "unsupported_parameter")),
    (400, anthropic("invalid_request_error", "max_tokens: must be greater than 0")),
    (422, {"detail": [{"loc": ["body", "stop"], "msg": "value is not a valid list"}]}),
    (400, {}),
    (418, {}),
]
TABLE = [
    (reason, status, body)
    for reason, rows in (
        ("UPSTREAM_TOO_LONG", TOO_LONG),
        ("UPSTREAM_FILTERED", FILTERED),
        ("UPSTREAM_CREDENTIALS", CREDENTIALS),
        ("UPSTREAM_BALANCE", BALANCE),
        ("UPSTREAM_NO_MODEL", NO_MODEL),
        ("UPSTREAM_RATE_LIMITED", RATE),
        ("UPSTREAM_OVERLOADED", OVERLOADED),
        ("UPSTREAM_ERROR", ERRORS),
        ("UPSTREAM_REFUSED", REFUSED),
    )
    for status, body in rows
]


@pytest.mark.wire_case(17)
@pytest.mark.wire_case(18)
@pytest.mark.wire_case(19)
@pytest.mark.parametrize(("reason", "status", "body"), TABLE)
def test_each_providers_error_has_its_reason(reason: str, status: int, body: Any) -> None:
    assert fault_of(status, body).reason == reason


@pytest.mark.wire_case(20)
@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry_after": "7"}, {}, 7.0),
        ({"retry_after": "0.5"}, {}, 0.5),
        ({"retry_after": "7", "retry_after_ms": "1500"}, {}, 1.5),
        ({"retry_after": "Mon, 12 Jan 1970 13:47:20 GMT"}, {}, 40.0),
        ({}, google(429, "RESOURCE_EXHAUSTED", "", {"retryDelay": "45.8s"}), 45.8),
        ({}, openai("Rate limit reached. Please try again in 1m30.5s."), 90.5),
        ({}, openai("Please try again in 20ms."), 0.02),
        ({"retry_after": "1e9"}, {}, 3600.0),
        ({"retry_after": "inf"}, {}, 1.0),
        ({"retry_after": "soon"}, {}, 1.0),
        ({}, {}, 1.0),
    ],
)
def test_the_time_to_wait_is_read_in_every_form(
    headers: dict[str, str], body: Any, seconds: float
) -> None:
    assert fault_of(429, body, **headers).retry_after_s == pytest.approx(seconds)


def test_the_caller_hears_the_code_and_the_cleaned_words_of_an_error_that_is_its_own() -> None:
    said = (
        "Invalid schema for 'f'; see https://x.test/a?key=1. Key sk-proj-abc123def, org-77aabbcc."
    )
    fault = fault_of(400, openai(said, "invalid_function_parameters"))
    assert "400 invalid_function_parameters" in fault.message
    assert "Invalid schema for 'f'" in fault.message
    for secret in ("sk-proj", "abc123", "https", "org-77"):
        assert secret not in fault.message


@pytest.mark.parametrize("status", [401, 402, 404, 429, 500, 503])
def test_words_about_others_are_not_told(status: int) -> None:
    body = openai("prompt of another tenant: my password is hunter2", "some_code")
    fault = fault_of(status, body)
    assert "hunter2" not in fault.message
    assert "some_code" in fault.message


def test_only_the_first_line_is_told_and_little_of_it() -> None:
    fault = fault_of(400, openai("bad\x00 value " + "y " * 500 + "\nTraceback: secret"))
    assert len(fault.message) < 400
    assert "Traceback" not in fault.message
    assert fault.message.isprintable()


@pytest.mark.parametrize(
    ("param", "field"),
    [
        ("max_completion_tokens", "task.generate.max_tokens"),
        ("tools[0].function.parameters", "task.generate.tools"),
        ("messages.[1].content", "task.generate.messages"),
        ("temperature", "task.generate.temperature"),
        ("something", "task"),
        (None, "task"),
    ],
)
def test_the_field_that_the_caller_must_mend_is_named(param: str | None, field: str) -> None:
    body = {"error": {"message": "bad", "type": "invalid_request_error", "param": param}}
    assert fault_of(400, body).field == field


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b"[]", b"null", b"7", b'"busy"', b'{"error": null}', b"\xff\xfe"],
)
def test_a_body_that_says_nothing_leaves_the_status_to_decide(body: bytes) -> None:
    assert status_fault(503, {}, body, NOW_UNIX_S).reason == "UPSTREAM_OVERLOADED"
    assert status_fault(400, {}, body, NOW_UNIX_S).reason == "UPSTREAM_REFUSED"


@pytest.mark.wire_case(17)
async def test_an_error_inside_a_stream_is_the_callers_where_the_request_caused_it() -> None:
    error = {
        "error": {
            "message": "input (40000 tokens) is longer than the context length",
            "code": 400,
        }
    }
    async with serving(events(error, done=False)) as rig:
        with pytest.raises(Fault) as failed:
            await rig.streamed(asking())
    assert failed.value.reason == "UPSTREAM_TOO_LONG"
    assert failed.value.field == "task.messages"
    assert failed.value.consequences.verdict.value == "nothing"


@pytest.mark.wire_case(20)
async def test_a_refused_call_says_how_long_to_wait() -> None:
    async with serving(whole(openai("slow down"), 429, retry_after_ms="2500")) as rig:
        for ask in (rig.whole, rig.streamed):
            with pytest.raises(Fault) as failed:
                await ask(asking())
            assert failed.value.retry_after_s == 2.5


async def test_an_error_with_the_status_of_success_is_an_error_also_where_a_stream_was_asked() -> (
    None
):
    async with serving(whole(openai("nope", "insufficient_quota"))) as rig:
        with pytest.raises(Fault) as failed:
            await rig.streamed(asking())
    assert failed.value.reason == "UPSTREAM_BALANCE"


async def test_an_upstream_that_does_not_stream_is_read_all_the_same() -> None:
    choice = {"message": {"content": "all at once"}, "finish_reason": "stop"}
    async with serving(whole({"choices": [choice]})) as rig:
        chunks, result = await rig.chunks(asking())
    assert [chunk.delta for chunk in chunks] == ["all at once"]
    assert result.generate.message.content == "all at once"


async def test_a_long_error_body_is_not_read_to_its_end() -> None:
    body = [b'{"error": {"message": "' + b"x" * 8192] * 400
    async with serving(RawAnswer(body, 500, "application/json")) as rig:
        with pytest.raises(Fault) as failed:
            await rig.whole(asking())
    assert failed.value.reason == "UPSTREAM_ERROR"
