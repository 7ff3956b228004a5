"""OpenAI's own package: responses, kept and gone on from, whole and as events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from running_gateway import EDGE, EVERY_MODEL, KEY, OPENAI_MODEL, PNG, SCRIPTED

every_model = pytest.mark.parametrize("model", EVERY_MODEL)
scripted = pytest.mark.parametrize("model", SCRIPTED)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"days": {"type": "integer"}},
        "required": ["days"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Animal(BaseModel):
    """A form of answers."""

    legs: int


@pytest.fixture
def api() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{EDGE}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@every_model
def test_a_whole_response(api: openai.OpenAI, model: str) -> None:
    made = api.responses.create(
        model=model, input="hello", instructions="be brief", max_output_tokens=20
    )
    assert made.output_text
    assert made.status in ("completed", "incomplete")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens


@every_model
def test_events_are_numbered_and_end_with_the_whole(api: openai.OpenAI, model: str) -> None:
    events = list(
        api.responses.create(model=model, input="hello", max_output_tokens=20, stream=True)
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == last.response.output_text


@scripted
def test_the_helper_makes_the_same_response(api: openai.OpenAI, model: str) -> None:
    whole = api.responses.create(model=model, input="one two three")
    with api.responses.stream(model=model, input="one two three") as stream:
        made = stream.get_final_response()
    assert made.output_text == whole.output_text == "You said: one two three."


@scripted
def test_a_function_is_called_and_gone_on_from(api: openai.OpenAI, model: str) -> None:
    first = api.responses.create(model=model, input="for 3 days", tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"days": 3})
    second = api.responses.create(
        model=model,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        tools=[WEATHER],
    )
    assert "rain" in second.output_text
    assert second.previous_response_id == first.id


@scripted
def test_arguments_are_streamed(api: openai.OpenAI, model: str) -> None:
    with api.responses.stream(model=model, input="for 5 days", tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        made = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    (call,) = [item for item in made.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"days": 5}


@scripted
def test_an_answer_in_a_form_is_parsed(api: openai.OpenAI, model: str) -> None:
    made = api.responses.parse(model=model, input="with 8 legs", text_format=Animal)
    assert made.output_parsed == Animal(legs=8)


@scripted
def test_an_image_reaches_the_model(api: openai.OpenAI, model: str) -> None:
    parts: Any = [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
    ]
    made = api.responses.create(model=model, input=[{"role": "user", "content": parts}])
    assert "1 image" in made.output_text


@scripted
def test_the_largest_length_makes_it_incomplete(api: openai.OpenAI, model: str) -> None:
    made = api.responses.create(model=model, input="one two three", max_output_tokens=2)
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


@scripted
def test_effort_is_taken(api: openai.OpenAI, model: str) -> None:
    made = api.responses.create(
        model=model,
        input="think",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    )
    assert made.output_text == "You said: think."
    again = api.responses.create(
        model=model,
        input=[*[item.model_dump(exclude_none=True) for item in made.output], turn("and now?")],
        reasoning={"effort": "low"},
        store=False,
    )
    assert again.output_text == "You said: and now?."


def turn(text: str) -> Any:
    return {"role": "user", "content": text}


def test_it_is_kept_listed_and_deleted(api: openai.OpenAI) -> None:
    made = api.responses.create(model=OPENAI_MODEL, input="one", metadata={"a": "b"})
    assert api.responses.retrieve(made.id).output_text == made.output_text
    items = api.responses.input_items.list(made.id)
    assert [item.type for item in items.data] == ["message"]
    api.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(made.id)


def test_what_was_not_stored_cannot_be_gone_on_from(api: openai.OpenAI) -> None:
    made = api.responses.create(model=OPENAI_MODEL, input="one", store=False)
    with pytest.raises(openai.BadRequestError) as caught:
        api.responses.create(model=OPENAI_MODEL, input="two", previous_response_id=made.id)
    assert caught.value.param == "previous_response_id"


def test_an_item_is_referred_to(api: openai.OpenAI) -> None:
    first = api.responses.create(model=OPENAI_MODEL, input="one")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    made = api.responses.create(
        model=OPENAI_MODEL, input=[turn("one"), reference, turn("and then?")]
    )
    assert made.output_text == "You said: and then?."
