"""The page about providers, held against the table in force."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from penstock.inference_upstream.protocols.anthropic_messages.minimums import min_cache_tokens
from penstock.inference_upstream.providers import PROVIDERS
from penstock.inference_upstream.settings import UpstreamsSection

PAGE = (Path(__file__).parents[3] / "docs/providers.md").read_text()


def test_the_page_has_a_row_of_each_provider_with_its_addresses() -> None:
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row[1])]
    assert named == [provider.name for provider in PROVIDERS]
    addresses = " ".join(row[2] for row in rows)
    for provider in PROVIDERS:
        for host in provider.hosts:
            assert f"`{'*' if host.startswith('.') else ''}{host}`" in addresses


def test_the_pages_example_is_a_valid_section_whose_providers_are_known() -> None:
    example = PAGE.partition("```yaml\n")[2].partition("```")[0]
    section = UpstreamsSection.model_validate(yaml.safe_load(example)["upstreams"])
    names = [server.known_provider.name for server in section.servers]
    assert names == ["azure", "azure", "bedrock", "gemini", "anthropic"]


def test_the_shortest_cached_prefixes_are_those_of_the_page() -> None:
    for model, tokens in (
        ("claude-opus-4-6", 4096),
        ("claude-haiku-4-5-20251001", 4096),
        ("claude-sonnet-4-6", 2048),
        ("claude-3-5-haiku-20241022", 2048),
        ("claude-sonnet-4-5", 1024),
        ("claude-opus-4-20250514", 1024),
        ("claude-3-7-sonnet-20250219", 1024),
        ("us.anthropic.claude-opus-4-5-v1:0", 4096),
        ("claude-next", 512),
    ):
        assert min_cache_tokens(model) == tokens
