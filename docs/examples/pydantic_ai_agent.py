"""An agent of Pydantic AI that calls a tool, on Anthropic's wire.

`make up` with a model that calls tools, and `pip install "pydantic-ai-slim[anthropic]"`; then
`PENSTOCK_MODEL=MODEL python docs/examples/pydantic_ai_agent.py`.
"""

from __future__ import annotations

import os

import anthropic
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ["PENSTOCK_MODEL"]

client = anthropic.AsyncAnthropic(
    base_url=ADDRESS, api_key=KEY, default_headers={"x-penstock-run": "example"}
)
agent = Agent(AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client)))


@agent.tool_plain
def weather(city: str) -> str:
    """The weather of a city."""
    return f"21 degrees in {city}"


print(agent.run_sync("How is the weather in 'Paris'?").output)
