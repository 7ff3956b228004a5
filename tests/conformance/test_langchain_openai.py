"""The standard suite of `langchain-tests` with ChatOpenAI, on chat completions and on responses."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from running_gateway import ANTHROPIC_MODEL, EDGE, KEY, OPENAI_MODEL, PNG


@pytest.fixture(autouse=True)
def image_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite fetches the image that it sends; here it gets one of a pixel."""
    image = httpx.Response(200, content=base64.b64decode(PNG))
    monkeypatch.setattr(httpx, "get", lambda *_, **__: image)


class _OfOpenAI(ChatModelIntegrationTests):
    """What both wires have in common."""

    chat_model_class = ChatOpenAI
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    model_override_value = ANTHROPIC_MODEL

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The gateway, and the model that the provider speaks OpenAI's wire for."""
        return {
            "model": OPENAI_MODEL,
            "base_url": f"{EDGE}/v1",
            "api_key": KEY,
            "stream_usage": True,
            "max_retries": 0,
        }


class TestChatCompletions(_OfOpenAI):
    """By `/v1/chat/completions`."""


class TestResponses(_OfOpenAI):
    """By `/v1/responses`."""

    supports_image_tool_message = True

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The same, by responses."""
        return super().chat_model_params | {"use_responses_api": True}


class TestTranslated(_OfOpenAI):
    """By chat completions, with a provider of Anthropic's wire."""

    model_override_value = OPENAI_MODEL

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The same with the other model."""
        return super().chat_model_params | {"model": ANTHROPIC_MODEL}


del ChatModelIntegrationTests
del _OfOpenAI
