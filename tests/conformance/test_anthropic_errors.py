"""Anthropic's own package: every failure raises the class that clients catch."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from running_gateway import ANTHROPIC_MODEL, EDGE, KEY, SCRIPTED

BY_STATUS = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


def client(**given: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=EDGE, max_retries=0, **(given or {"api_key": KEY}))


def ask(api: anthropic.Anthropic, **fields: Any) -> Any:
    turns = [{"role": "user", "content": "hello"}]
    asked = {"model": ANTHROPIC_MODEL, "max_tokens": 20, "messages": turns, **fields}
    return api.messages.create(**asked)


def kind_of(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    assert body["type"] == "error"
    return str(body["error"]["type"])


def test_both_kinds_of_key() -> None:
    with client(api_key=KEY) as api:
        assert ask(api).content
    with client(auth_token=KEY) as api:
        assert ask(api).content


def test_a_wrong_key() -> None:
    with client(api_key="psk-wrong") as api, pytest.raises(anthropic.AuthenticationError) as caught:
        ask(api)
    assert kind_of(caught.value) == "authentication_error"


def test_an_unknown_model() -> None:
    with client() as api, pytest.raises(anthropic.NotFoundError) as caught:
        ask(api, model="nobody")
    assert kind_of(caught.value) == "not_found_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"max_tokens": 0},
        {"tool_choice": {"type": "nobody"}},
        {"tools": [{"name": "x"}]},
    ],
    ids=["messages", "role", "max_tokens", "tool_choice", "tools"],
)
def test_a_bad_field_is_named(fields: dict[str, Any]) -> None:
    with client() as api, pytest.raises(anthropic.BadRequestError) as caught:
        ask(api, **fields)
    assert kind_of(caught.value) == "invalid_request_error"
    assert next(iter(fields)) in str(caught.value)


@pytest.mark.parametrize("model", SCRIPTED)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", list(BY_STATUS))
def test_a_providers_failure(model: str, status: int, stream: bool) -> None:
    turns = [{"role": "user", "content": f"answer with status {status} to {model} {stream}"}]
    with client() as api, pytest.raises(anthropic.APIStatusError) as caught:
        ask(api, model=model, messages=turns, stream=stream)
    assert isinstance(caught.value, BY_STATUS[status])
    assert caught.value.request_id
