"""Anthropic's own client through the whole path, to a provider of chat completions."""

from __future__ import annotations

from typing import Any

import anthropic
from penstock.testkit.scripted_answers import ScriptedAnswer
from running_edge import KEY, MODEL, Edge

TOOL: Any = {"name": "find", "description": "finds", "input_schema": {"type": "object"}}
QUESTION: Any = {"role": "user", "content": "where is it?"}


def client(edge: Edge) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"http://{edge.address}", api_key=KEY, max_retries=0)


async def test_a_streamed_message_says_what_the_provider_said(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("one two three")
    asked: Any = {"model": MODEL, "max_tokens": 50, "messages": [QUESTION], "system": "be brief"}
    async with client(edge) as api, api.messages.stream(**asked) as stream:
        made = await stream.get_final_message()
    assert made.content[0].to_dict() == {"type": "text", "text": "one two three"}
    assert made.stop_reason == "end_turn"
    assert made.usage.input_tokens > 0


async def test_results_of_tools_reach_a_provider_of_another_wire(edge: Edge) -> None:
    edge.provider.script = lambda _: ScriptedAnswer("in Paris")
    call: Any = {"type": "tool_use", "id": "toolu_x_call_1", "name": "find", "input": {"a": 1}}
    result: Any = {"type": "tool_result", "tool_use_id": "toolu_x_call_1", "content": "Paris"}
    turns: Any = [
        QUESTION,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    async with client(edge) as api:
        made = await api.messages.create(model=MODEL, max_tokens=50, messages=turns, tools=[TOOL])
    assert made.content[0].to_dict() == {"type": "text", "text": "in Paris"}
    _, assistant, tool = edge.provider.requests[-1]["messages"]
    assert assistant["tool_calls"][0]["id"] == "call_1"
    assert (tool["tool_call_id"], tool["content"]) == ("call_1", "Paris")
