"""An agent of OpenAI's Agents SDK that calls a tool; every call of a run is counted to it.

`make up` with a model that calls tools, and `pip install openai-agents`; then
`PENSTOCK_MODEL=MODEL python docs/examples/openai_agents.py`.
"""

from __future__ import annotations

import os

import openai
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ["PENSTOCK_MODEL"]


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"21 degrees in {city}"


set_tracing_disabled(True)  # The SDK would send its traces to OpenAI.
client = openai.AsyncOpenAI(
    base_url=f"{ADDRESS}/v1", api_key=KEY, default_headers={"x-penstock-run": "example"}
)
agent = Agent(
    "clerk",
    instructions="Answer with what the tool says.",
    tools=[weather],
    model=OpenAIResponsesModel(MODEL, client),
)
print(Runner.run_sync(agent, "How is the weather in 'Paris'?").final_output)
