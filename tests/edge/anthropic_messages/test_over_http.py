"""Anthropic's own client against the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest
from penstock.rpc.errors import unavailable
from penstock.testkit.router import KEY, MODEL

from ..echoing_edge import EchoingEdge, serving_edge

ASKED: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "one"}]}


@pytest.fixture
async def edge() -> AsyncIterator[EchoingEdge]:
    async with serving_edge() as made:
        yield made


def client(edge: EchoingEdge, **credentials: Any) -> anthropic.AsyncAnthropic:
    given = credentials or {"api_key": KEY}
    return anthropic.AsyncAnthropic(base_url=edge.url, max_retries=0, **given)


@pytest.mark.parametrize("credentials", [{"api_key": KEY}, {"auth_token": KEY}])
async def test_a_message_by_either_kind_of_key(edge: EchoingEdge, credentials: Any) -> None:
    async with client(edge, **credentials) as api:
        made = await api.messages.create(**ASKED)
    assert made.content[0].to_dict() == {"type": "text", "text": "ONE"}
    assert (made.usage.input_tokens, made.usage.cache_read_input_tokens) == (10, 20)


async def test_a_streamed_message(edge: EchoingEdge) -> None:
    async with client(edge) as api, api.messages.stream(**ASKED) as stream:
        texts = [text async for text in stream.text_stream]
        made = await stream.get_final_message()
    assert texts == ["O", "N", "E"]
    assert made.stop_reason == "end_turn"


async def test_a_coding_agents_first_steps(edge: EchoingEdge) -> None:
    """It probes the address, counts tokens, lists the models, and sends `?beta=true`."""
    async with httpx2.AsyncClient() as plain:
        assert (await plain.head(f"{edge.url}/")).status_code == 200
    headers = {"x-claude-code-session-id": "s1", "anthropic-beta": "new-2027-01-01"}
    async with client(edge) as api:
        counted = await api.messages.count_tokens(model="m", messages=ASKED["messages"])
        assert counted.input_tokens > 0
        assert [model.id async for model in api.models.list(limit=1000)] == [MODEL]
        made = await api.beta.messages.create(**ASKED, extra_headers=headers)
    assert made.content[0].type == "text"
    assert edge.router.calls[-1][0].run_id == "s1"


async def test_a_failure_in_the_middle_is_an_event(edge: EchoingEdge) -> None:
    edge.router.faults = [unavailable("it broke")]
    async with client(edge) as api, api.messages.stream(**ASKED) as stream:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await stream.get_final_message()
    assert "it broke" in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "fields", "error"),
    [
        ({"api_key": "psk-other"}, {}, anthropic.AuthenticationError),
        ({"api_key": KEY}, {"max_tokens": 0}, anthropic.BadRequestError),
    ],
)
async def test_failures_are_the_packages_own(
    edge: EchoingEdge, credentials: Any, fields: Any, error: type[anthropic.APIStatusError]
) -> None:
    async with client(edge, **credentials) as api:
        with pytest.raises(error) as caught:
            await api.messages.create(**{**ASKED, **fields}, stream=True)
    assert caught.value.request_id
    assert caught.value.body["type"] == "error"  # type: ignore[index, call-overload]
