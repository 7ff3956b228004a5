"""OpenAI's own package: every failure raises the class that clients catch."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from running_gateway import EDGE, KEY, OPENAI_MODEL, SCRIPTED

BY_STATUS = {
    400: openai.BadRequestError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


def client(key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{EDGE}/v1", api_key=key, max_retries=0)


def ask(api: openai.OpenAI, **fields: Any) -> Any:
    asked = {"model": OPENAI_MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}
    return api.chat.completions.create(**asked)


def test_a_wrong_key() -> None:
    with client("psk-wrong") as api, pytest.raises(openai.AuthenticationError) as caught:
        ask(api)
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model() -> None:
    with client() as api, pytest.raises(openai.NotFoundError) as caught:
        ask(api, model="nobody")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0].role"),
        ({"temperature": 9}, "temperature"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with client() as api, pytest.raises(openai.BadRequestError) as caught:
        ask(api, **fields)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("model", SCRIPTED)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", list(BY_STATUS))
def test_a_providers_failure(model: str, status: int, stream: bool) -> None:
    asked = [{"role": "user", "content": f"answer with status {status} to {model} {stream}"}]
    with client() as api, pytest.raises(openai.APIStatusError) as caught:
        ask(api, model=model, messages=asked, stream=stream)
    assert isinstance(caught.value, BY_STATUS[status])
    assert caught.value.request_id


def test_no_such_path() -> None:
    with client() as api, pytest.raises(openai.NotFoundError):
        api.moderations.create(input="x")
