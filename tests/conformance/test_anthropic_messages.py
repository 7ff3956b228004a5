"""Anthropic's own package: messages, whole and as events, with all that clients send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel
from running_gateway import ANTHROPIC_MODEL, EDGE, EVERY_MODEL, KEY, PNG, SCRIPTED

every_model = pytest.mark.parametrize("model", EVERY_MODEL)
scripted = pytest.mark.parametrize("model", SCRIPTED)
WEATHER: Any = {
    "name": "weather",
    "description": "the weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
CLOCK: Any = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}


class Animal(BaseModel):
    """A form of answers."""

    legs: int


def said(content: Any) -> Any:
    """One turn of the user's."""
    return [{"role": "user", "content": content}]


@pytest.fixture
def api() -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=EDGE, api_key=KEY, max_retries=0) as client:
        yield client


@every_model
def test_a_whole_message(api: anthropic.Anthropic, model: str) -> None:
    made = api.messages.create(
        model=model, max_tokens=20, messages=said("hello"), system="be brief"
    )
    assert (made.type, made.role, made.model) == ("message", "assistant", model)
    assert made.content[0].type == "text"
    assert made.stop_reason in ("end_turn", "max_tokens")
    assert made.usage.input_tokens > 0
    assert made.usage.output_tokens > 0


@every_model
def test_a_stream_makes_a_message(api: anthropic.Anthropic, model: str) -> None:
    with api.messages.stream(model=model, max_tokens=20, messages=said("hello")) as stream:
        text = "".join(stream.text_stream)
        made = stream.get_final_message()
    assert made.content[0].type == "text"
    assert made.content[0].text == text
    assert made.usage.output_tokens > 0


@every_model
def test_raw_events_are_in_order(api: anthropic.Anthropic, model: str) -> None:
    events = list(
        api.messages.create(model=model, max_tokens=20, messages=said("hello"), stream=True)
    )
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


@scripted
def test_the_stream_is_the_whole_message(api: anthropic.Anthropic, model: str) -> None:
    asked: Any = {"model": model, "max_tokens": 99, "messages": said("one two three")}
    whole = api.messages.create(**asked)
    with api.messages.stream(**asked) as stream:
        made = stream.get_final_message()
    assert made.content[0].to_dict()["text"] == whole.content[0].to_dict()["text"]
    assert made.stop_reason == whole.stop_reason == "end_turn"


@scripted
@pytest.mark.parametrize("choice", ["auto", "any", "tool"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_and_its_result_read(
    api: anthropic.Anthropic, model: str, choice: str, stream: bool
) -> None:
    named: Any = {"type": choice, **({"name": "weather"} if choice == "tool" else {})}
    tools = [WEATHER, CLOCK]
    asked: Any = {"model": model, "max_tokens": 99, "tools": tools, "tool_choice": named}
    turns = said("the weather for 3 days")
    made = _message(api, stream, messages=turns, **asked)
    assert made.stop_reason == "tool_use"
    (use,) = [block for block in made.content if block.type == "tool_use"]
    assert (use.name, use.input) == ("weather", {"city": "scripted", "days": 3})
    turns += [
        {"role": "assistant", "content": [block.to_dict() for block in made.content]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": use.id,
                    "content": [{"type": "text", "text": "rain"}],
                }
            ],
        },
    ]
    answer = _message(api, stream, model=model, max_tokens=99, messages=turns, tools=tools)
    assert "rain" in answer.content[0].to_dict()["text"]


def _message(api: anthropic.Anthropic, stream: bool, **asked: Any) -> Any:
    if not stream:
        return api.messages.create(**asked)
    with api.messages.stream(**asked) as made:
        return made.get_final_message()


@scripted
def test_parallel_uses(api: anthropic.Anthropic, model: str) -> None:
    made = _message(
        api,
        True,
        model=model,
        max_tokens=99,
        messages=said("in parallel"),
        tools=[WEATHER, CLOCK],
    )
    uses = [block for block in made.content if block.type == "tool_use"]
    assert {use.name for use in uses} == {"weather", "clock"}
    assert len({use.id for use in uses}) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}]
)
def test_thinking_goes_round(api: anthropic.Anthropic, stream: bool, thinking: Any) -> None:
    asked: Any = {"model": ANTHROPIC_MODEL, "max_tokens": 2048, "thinking": thinking}
    made = _message(api, stream, messages=said("hello"), **asked)
    assert [block.type for block in made.content] == ["thinking", "text"]
    assert made.content[0].signature
    turns = [
        *said("hello"),
        {"role": "assistant", "content": [block.to_dict() for block in made.content]},
        *said("and now?"),
    ]
    assert _message(api, stream, messages=turns, **asked).content[1].text == "You said: and now?."


@scripted
@pytest.mark.parametrize(
    "source",
    [
        {"type": "base64", "media_type": "image/png", "data": PNG},
        {"type": "url", "url": "https://example.com/a.png"},
    ],
    ids=["base64", "url"],
)
def test_an_image_reaches_the_model(api: anthropic.Anthropic, model: str, source: Any) -> None:
    parts = [{"type": "text", "text": "what?"}, {"type": "image", "source": source}]
    made = api.messages.create(model=model, max_tokens=99, messages=said(parts))
    assert "1 image" in made.content[0].to_dict()["text"]


@scripted
def test_an_answer_in_a_form_is_parsed(api: anthropic.Anthropic, model: str) -> None:
    made = api.messages.parse(
        model=model, max_tokens=99, messages=said("with 8 legs"), output_format=Animal
    )
    assert made.parsed_output == Animal(legs=8)


@scripted
def test_the_largest_length_is_kept(api: anthropic.Anthropic, model: str) -> None:
    made = api.messages.create(model=model, max_tokens=2, messages=said("one two three"))
    assert made.stop_reason == "max_tokens"
    assert made.content[0].to_dict()["text"] == "You said: "


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_named(api: anthropic.Anthropic, stream: bool) -> None:
    made = _message(
        api,
        stream,
        model=ANTHROPIC_MODEL,
        max_tokens=99,
        messages=said("one"),
        stop_sequences=["said"],
    )
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", "said")


@scripted
def test_cache_control_and_system_blocks(api: anthropic.Anthropic, model: str) -> None:
    system: Any = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    made = api.messages.create(
        model=model,
        max_tokens=99,
        system=system,
        messages=said("hello"),
        metadata={"user_id": "ann"},
    )
    assert made.content[0].to_dict()["text"] == "You said: hello."


@scripted
def test_a_refusal_is_told(api: anthropic.Anthropic, model: str) -> None:
    made = api.messages.create(model=model, max_tokens=99, messages=said("please refuse"))
    assert made.stop_reason == "refusal"


@every_model
def test_tokens_are_counted(api: anthropic.Anthropic, model: str) -> None:
    few = api.messages.count_tokens(model=model, messages=said("hello"))
    many = api.messages.count_tokens(
        model=model, messages=said("hello " * 50), system="be brief", tools=[WEATHER]
    )
    assert 0 < few.input_tokens < many.input_tokens


def test_the_beta_messages(api: anthropic.Anthropic) -> None:
    made = api.beta.messages.create(
        model=ANTHROPIC_MODEL,
        max_tokens=99,
        messages=said("hello"),
        betas=["interleaved-thinking-2025-05-14"],
    )
    assert made.content[0].to_dict()["text"] == "You said: hello."


def test_models_are_listed_and_found(api: anthropic.Anthropic) -> None:
    assert set(EVERY_MODEL) <= {model.id for model in api.models.list(limit=1000)}
    assert api.models.retrieve(ANTHROPIC_MODEL).id == ANTHROPIC_MODEL
