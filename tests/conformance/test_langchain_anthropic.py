"""The standard suite of `langchain-tests` with ChatAnthropic."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_tests.integration_tests import ChatModelIntegrationTests
from running_gateway import ANTHROPIC_MODEL, EDGE, KEY, OPENAI_MODEL, PNG


@pytest.fixture(autouse=True)
def image_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite fetches the image that it sends; here it gets one of a pixel."""
    image = httpx.Response(200, content=base64.b64decode(PNG))
    monkeypatch.setattr(httpx, "get", lambda *_, **__: image)


class _OfAnthropic(ChatModelIntegrationTests):
    """What both providers have in common."""

    chat_model_class = ChatAnthropic
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    supports_anthropic_inputs = True
    model_override_value = OPENAI_MODEL

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The gateway, and the model that the provider speaks Anthropic's wire for."""
        return {"model": ANTHROPIC_MODEL, "base_url": EDGE, "api_key": KEY, "max_retries": 0}


class TestMessages(_OfAnthropic):
    """By `/v1/messages`."""


class TestTranslated(_OfAnthropic):
    """With a provider of OpenAI's wire."""

    model_override_value = ANTHROPIC_MODEL

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """The same with the other model."""
        return super().chat_model_params | {"model": OPENAI_MODEL}


del ChatModelIntegrationTests
del _OfAnthropic
