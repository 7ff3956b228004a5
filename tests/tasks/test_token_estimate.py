"""Estimated lengths of texts: what grouping by length goes by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.tasks.kind import text_tokens, texts_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 3),
        ("hello", 3),
        ("my card has not arrived", 7),
        ("What's up, doc?", 8),
        ("a" * 60, 12),
        ("日本語の文章には空白がない", 11),
    ],
)
def test_words_marks_and_ends_are_counted(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


@given(st.lists(st.text()))
def test_texts_count_each(texts: list[str]) -> None:
    assert texts_tokens(texts) == sum(text_tokens(text) for text in texts)
    assert all(text_tokens(f"{text} word") >= text_tokens(text) for text in texts)
