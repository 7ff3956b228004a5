"""Tokens without a tokenizer: the bound holds for every script, and is far from a token a byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.tasks.tokens import estimated_tokens, token_bound, token_bounds

SAMPLES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "token_samples.json").read_text(encoding="utf-8")
)
"""Texts, each with the most tokens that any of four vocabularies makes of it: OpenAI's cl100k_base,
o200k_base and p50k_base, and the one that Anthropic has published. Prose is article 1 of the
Universal Declaration of Human Rights.
"""
ENGLISH = SAMPLES["en"]["text"]
PLAIN = ("en", "code", "json")


@pytest.mark.wire_case(23)
@pytest.mark.parametrize("name", SAMPLES)
def test_no_vocabulary_exceeds_the_bound(name: str) -> None:
    most, text = SAMPLES[name]["most"], SAMPLES[name]["text"]
    assert most <= token_bound(text) <= len(text.encode()) + 2


@pytest.mark.parametrize("name", PLAIN)
def test_the_estimate_is_close_for_english_code_and_json(name: str) -> None:
    most, text = SAMPLES[name]["most"], SAMPLES[name]["text"]
    assert 0.75 * most <= estimated_tokens(text) <= 1.25 * most


@pytest.mark.wire_case(23)
def test_70_kb_of_english_fit_60_000_tokens() -> None:
    text = (ENGLISH + " ") * (70_000 // len(ENGLISH))
    assert token_bound(text) < 50_000


def test_spaces_in_a_row_may_be_tokens_of_their_own() -> None:
    assert token_bound("a" + " " * 9 + "b") >= 9 - 1 + 2


@given(st.text(), st.text())
def test_a_bound_holds_for_the_whole_as_for_its_parts(first: str, second: str) -> None:
    assert token_bound(first + second) <= token_bound(first) + token_bound(second) + 2
    assert estimated_tokens(first) <= token_bound(first) + 1
    assert token_bounds([first, second]) == token_bound(first) + token_bound(second)


def test_half_a_surrogate_pair_is_counted_too() -> None:
    assert token_bound("\ud800") >= 1
