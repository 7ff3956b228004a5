"""OpenAI's own package: chat completions, whole and as events, with all that clients send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel
from running_gateway import EDGE, EVERY_MODEL, KEY, PNG, SCRIPTED

every_model = pytest.mark.parametrize("model", EVERY_MODEL)
scripted = pytest.mark.parametrize("model", SCRIPTED)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}


class Animal(BaseModel):
    """A form of answers."""

    name: str
    legs: int


def said(text: str) -> Any:
    """One turn of the user's."""
    return [{"role": "user", "content": text}]


@pytest_asyncio.fixture
async def api() -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{EDGE}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@every_model
async def test_a_whole_answer(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.create(
        model=model, messages=said("hello"), max_completion_tokens=20
    )
    assert made.object == "chat.completion"
    assert made.model == model
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].message.content
    assert made.choices[0].finish_reason in ("stop", "length")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


@every_model
async def test_a_stream_without_usage_unless_asked(api: openai.AsyncOpenAI, model: str) -> None:
    stream = await api.chat.completions.create(
        model=model, messages=said("hello"), max_completion_tokens=20, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert not any(chunk.usage for chunk in chunks)


@every_model
async def test_usage_is_the_last_chunk_where_asked(api: openai.AsyncOpenAI, model: str) -> None:
    stream = await api.chat.completions.create(
        model=model,
        messages=said("hello"),
        max_completion_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert not any(chunk.usage for chunk in chunks[:-1])


@scripted
async def test_the_accumulated_stream_is_the_whole_answer(
    api: openai.AsyncOpenAI, model: str
) -> None:
    whole = await api.chat.completions.create(model=model, messages=said("one two three"))
    async with api.chat.completions.stream(model=model, messages=said("one two three")) as stream:
        made = await stream.get_final_completion()
    assert made.choices[0].message.content == whole.choices[0].message.content
    assert made.choices[0].finish_reason == whole.choices[0].finish_reason


@scripted
@pytest.mark.parametrize("choice", ["auto", "required", "named"])
async def test_a_tool_is_called_and_its_result_read(
    api: openai.AsyncOpenAI, model: str, choice: str
) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    turns = said("the weather for 3 days")
    made = await api.chat.completions.create(
        model=model,
        messages=turns,
        tools=[WEATHER, CLOCK],
        tool_choice=named if choice == "named" else choice,  # type: ignore[arg-type]
    )
    message = made.choices[0].message
    assert made.choices[0].finish_reason in ("tool_calls", "stop" if choice == "named" else "")
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "scripted", "days": 3}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns += [message.model_dump(exclude_none=True), result]
    answer = await api.chat.completions.create(model=model, messages=turns, tools=[WEATHER, CLOCK])
    assert "rain" in (answer.choices[0].message.content or "")


@scripted
async def test_arguments_of_parallel_calls_are_streamed(
    api: openai.AsyncOpenAI, model: str
) -> None:
    async with api.chat.completions.stream(
        model=model,
        messages=said("in parallel, for 2 days"),
        tools=[WEATHER, CLOCK],
        parallel_tool_calls=True,
    ) as stream:
        deltas = [
            event async for event in stream if event.type == "tool_calls.function.arguments.delta"
        ]
        made = await stream.get_final_completion()
    calls = made.choices[0].message.tool_calls or []
    arguments = {call.function.name: json.loads(call.function.arguments) for call in calls}
    assert arguments == {"weather": {"city": "scripted", "days": 2}, "clock": {}}
    assert len({call.id for call in calls}) == 2
    assert len(deltas) >= 2


@scripted
async def test_no_tool_is_called_where_none_may_be(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.create(
        model=model, messages=said("hello"), tools=[WEATHER], tool_choice="none"
    )
    assert made.choices[0].message.tool_calls is None
    assert made.choices[0].message.content


@scripted
async def test_an_answer_in_a_form_is_parsed(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.parse(
        model=model, messages=said("an animal with 4 legs"), response_format=Animal
    )
    assert made.choices[0].message.parsed == Animal(name="scripted", legs=4)
    async with api.chat.completions.stream(
        model=model, messages=said("an animal with 6 legs"), response_format=Animal
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Animal(name="scripted", legs=6)


@scripted
@pytest.mark.parametrize("address", [f"data:image/png;base64,{PNG}", "https://example.com/a.png"])
async def test_an_image_reaches_the_model(
    api: openai.AsyncOpenAI, model: str, address: str
) -> None:
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": address, "detail": "low"}},
    ]
    made = await api.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": parts}],  # type: ignore[list-item]
    )
    assert "1 image" in (made.choices[0].message.content or "")


@scripted
async def test_a_refusal_is_told(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.create(model=model, messages=said("please refuse"))
    choice = made.choices[0]
    assert choice.message.refusal or choice.finish_reason == "content_filter"
    stream = await api.chat.completions.create(
        model=model, messages=said("please refuse"), stream=True
    )
    choices = [chunk.choices[0] async for chunk in stream]
    refused = "".join(each.delta.refusal or "" for each in choices)
    assert refused or choices[-1].finish_reason == "content_filter"


@scripted
@pytest.mark.parametrize("length", ["max_tokens", "max_completion_tokens"])
async def test_the_largest_length_is_kept(api: openai.AsyncOpenAI, model: str, length: str) -> None:
    most: Any = {length: 2}
    made = await api.chat.completions.create(model=model, messages=said("one two three"), **most)
    assert made.choices[0].message.content == "You said: "
    assert made.choices[0].finish_reason == "length"


@scripted
@pytest.mark.parametrize("stop", ["said", ["two", "said"]])
async def test_a_stop_ends_the_answer(api: openai.AsyncOpenAI, model: str, stop: Any) -> None:
    made = await api.chat.completions.create(model=model, messages=said("one"), stop=stop)
    assert made.choices[0].message.content == "You "
    assert made.choices[0].finish_reason == "stop"


@every_model
async def test_roles_and_hints(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.create(
        model=model,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "hello", "name": "ann"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
        ],
        max_completion_tokens=20,
        temperature=0,
        seed=7,
        user="ann",
        store=False,
        service_tier="auto",
        metadata={"penstock_run": "conformance"},
    )
    assert made.choices[0].message.content


@scripted
async def test_effort_is_taken(api: openai.AsyncOpenAI, model: str) -> None:
    made = await api.chat.completions.create(
        model=model, messages=said("think"), reasoning_effort="low"
    )
    assert made.choices[0].message.content == "You said: think."


async def test_the_receipt_and_the_headers(api: openai.AsyncOpenAI) -> None:
    raw = await api.chat.completions.with_raw_response.create(
        model=SCRIPTED[0],
        messages=said("hello"),
        extra_headers={"x-penstock-run": "a-run", "x-penstock-step": "1"},
    )
    assert raw.headers["x-penstock-receipt"]
    assert raw.request_id
    assert raw.parse().choices[0].message.content
