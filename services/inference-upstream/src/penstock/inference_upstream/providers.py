"""Defaults for known providers: where their address tells who they are, nobody has to configure
what they take. `docs/providers.md` says where each row came from.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from penstock.inference_upstream.switches import Switches

WireName = Literal["openai-chat", "anthropic-messages"]
AuthStyle = Literal["bearer", "api-key", "x-api-key"]
MAX_TOKENS = Switches(length_parameter="max_tokens")
ANTHROPIC_VERSION = ("anthropic-version", "2023-06-01")


@dataclass(frozen=True)
class Provider:
    """A row of the table."""

    name: str
    hosts: tuple[str, ...] = ()
    """Ends of the host names by which an address is known to be the provider's."""
    wire: WireName = "openai-chat"
    auth: AuthStyle = "bearer"
    headers: tuple[tuple[str, str], ...] = ()
    switches: Switches = field(default_factory=Switches)
    max_embed_texts: int = 0
    """Texts that one embedding request may have; 0 for any number."""


OTHER = Provider("other")
"""An upstream that is not in the table."""

PROVIDERS: tuple[Provider, ...] = (
    Provider(
        "openai",
        ("api.openai.com",),
        switches=Switches(
            same_wire=True,
            allowed_tools=True,
            reasoning_back=False,
            extras_back=False,
            breakpoints="prompt_cache_breakpoint",
            confirms_end=True,
        ),
        max_embed_texts=2048,
    ),
    Provider(
        "azure",
        (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
        auth="api-key",
        switches=Switches(
            allowed_tools=True,
            reasoning_back=False,
            extras_back=False,
            confirms_end=True,
        ),
        max_embed_texts=2048,
    ),
    Provider(
        "anthropic",
        ("api.anthropic.com",),
        wire="anthropic-messages",
        auth="x-api-key",
        headers=(ANTHROPIC_VERSION,),
        switches=Switches(
            same_wire=True,
            json_object=False,
            system_turns="first",
            reasoning="adaptive",
            breakpoints="cache_control",
            confirms_end=True,
            empty_text=False,
        ),
    ),
    Provider(
        "gemini",
        ("generativelanguage.googleapis.com",),
        switches=Switches(
            length_parameter="max_tokens",
            system_turns="first",
            parallel_tools=False,
            reasoning_back=False,
            confirms_end=True,
        ),
        max_embed_texts=100,
    ),
    Provider(
        "bedrock",
        (".amazonaws.com",),
        switches=Switches(parallel_tools=False),
    ),
    Provider(
        "openrouter",
        ("openrouter.ai",),
        switches=Switches(
            length_parameter="max_tokens",
            reasoning="reasoning",
            breakpoints="cache_control",
            confirms_end=True,
        ),
    ),
    Provider(
        "mistral",
        ("api.mistral.ai",),
        switches=Switches(
            length_parameter="max_tokens",
            stream_usage=False,
            reasoning="none",
            confirms_end=True,
        ),
    ),
    Provider(
        "deepseek",
        ("api.deepseek.com",),
        switches=Switches(
            length_parameter="max_tokens",
            strict_schemas=False,
            parallel_tools=False,
            confirms_end=True,
        ),
    ),
    Provider(
        "groq",
        ("api.groq.com",),
        switches=Switches(reasoning_back=False, confirms_end=True),
    ),
    Provider("xai", ("api.x.ai",), switches=Switches(confirms_end=True)),
    Provider("together", ("api.together.xyz", "api.together.ai"), switches=MAX_TOKENS),
    Provider("fireworks", ("api.fireworks.ai",), switches=MAX_TOKENS),
    Provider(
        "ollama",
        switches=Switches(
            length_parameter="max_tokens", strict_schemas=False, parallel_tools=False
        ),
    ),
    Provider("vllm", switches=Switches(confirms_end=True)),
    Provider("sglang", switches=Switches(confirms_end=True)),
    Provider("llama-cpp", switches=Switches(length_parameter="max_tokens", reasoning="none")),
    Provider("tei", max_embed_texts=32),
    OTHER,
)
NAMED: Mapping[str, Provider] = {provider.name: provider for provider in PROVIDERS}


@functools.lru_cache(maxsize=64)
def provider_at(base_url: str) -> Provider:
    """The provider whose address this is; `OTHER` where it is nobody's that is known."""
    host = urlsplit(base_url).hostname or ""
    for provider in PROVIDERS:
        if any(host.endswith(end) if end[0] == "." else host == end for end in provider.hosts):
            return provider
    return OTHER
