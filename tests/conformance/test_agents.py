"""`openai-agents` and `pydantic-ai`: agents that call a tool and answer with what it said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from pydantic import BaseModel
from pydantic_ai import Agent as TypedAgent
from pydantic_ai import NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as TypedResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from running_gateway import EDGE, KEY, SCRIPTED

set_tracing_disabled(True)
scripted = pytest.mark.parametrize("model", SCRIPTED)
QUESTION = "the weather for 3 days"


class Animal(BaseModel):
    """A form of answers."""

    legs: int


def openai_client() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{EDGE}/v1", api_key=KEY, max_retries=0)


@function_tool
def weather(days: int) -> str:
    """The weather of some days."""
    return f"rain on {days} days"


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@scripted
async def test_an_agent_of_openai_calls_its_tool(model: str, kind: Any) -> None:
    agent = Agent("clerk", tools=[weather], model=kind(model, openai_client()))
    result = await Runner.run(agent, QUESTION)
    assert "rain on 3 days" in result.final_output


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@scripted
async def test_an_agent_of_openai_streams(model: str, kind: Any) -> None:
    agent = Agent("clerk", tools=[weather], model=kind(model, openai_client()))
    result = Runner.run_streamed(agent, QUESTION)
    kinds = [event.type async for event in result.stream_events()]
    assert "raw_response_event" in kinds
    assert "rain on 3 days" in result.final_output


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@scripted
async def test_an_agent_of_openai_answers_in_a_form(model: str, kind: Any) -> None:
    agent = Agent("clerk", output_type=Animal, model=kind(model, openai_client()))
    result = await Runner.run(agent, "with 8 legs")
    assert result.final_output == Animal(legs=8)


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
@scripted
async def test_an_agent_of_openai_hands_over(model: str, kind: Any) -> None:
    served_by = kind(model, openai_client())
    clerk = Agent("clerk", model=served_by)
    desk = Agent("desk", handoffs=[clerk], model=served_by)
    result = await Runner.run(desk, "hello")
    assert result.last_agent is clerk
    assert result.final_output


def typed_chat(model: str) -> Any:
    return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=openai_client()))


def typed_responses(model: str) -> Any:
    return TypedResponsesModel(model, provider=OpenAIProvider(openai_client=openai_client()))


def typed_messages(model: str) -> Any:
    client = anthropic.AsyncAnthropic(base_url=EDGE, api_key=KEY, max_retries=0)
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))


wires = pytest.mark.parametrize("made", [typed_chat, typed_responses, typed_messages])


@wires
@scripted
async def test_a_typed_agent_calls_its_tool(model: str, made: Callable[[str], Any]) -> None:
    agent = TypedAgent(made(model))
    calls: list[int] = []

    @agent.tool_plain
    def weather(days: int) -> str:
        """The weather of some days."""
        calls.append(days)
        return f"rain on {days} days"

    result = await agent.run(QUESTION)
    assert calls == [3]
    assert "rain on 3 days" in result.output


@wires
@scripted
async def test_a_typed_agent_streams(model: str, made: Callable[[str], Any]) -> None:
    async with TypedAgent(made(model)).run_stream("hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "You said: hello."


@wires
@scripted
async def test_a_typed_agent_answers_by_a_tool(model: str, made: Callable[[str], Any]) -> None:
    result = await TypedAgent(made(model), output_type=Animal).run("with 8 legs")
    assert result.output == Animal(legs=8)


@pytest.mark.parametrize("made", [typed_chat, typed_responses])
@scripted
async def test_a_typed_agent_answers_in_a_form(model: str, made: Callable[[str], Any]) -> None:
    result = await TypedAgent(made(model), output_type=NativeOutput(Animal)).run("with 8 legs")
    assert result.output == Animal(legs=8)
