"""How many tokens a text is likely to be, without its model's tokenizer: what routing and grouping
by length need.
"""

from __future__ import annotations

from collections.abc import Iterable

MARKS = ".,?!'-/:\"()"
"""Punctuation that word-piece tokenizers give tokens of their own."""

ENDS = 2
"""Tokens that an encoder puts around a text."""

LONG_BYTES, WIDE_BYTES = 6, 4
"""Bytes of UTF-8 a token where a text has few spaces, ASCII or not: no word is taken to be one
token however long it is.
"""


def text_tokens(text: str) -> int:
    """Estimated tokens of one text for an encoder: its words and marks, and the two at its ends.

    On Banking77 and texts of mixed length the logarithm of estimate ÷ word-piece tokens has a
    standard deviation of 0.065; four bytes a token have 0.17 to 0.27, which a batch of "equal"
    lengths then pays as padding.
    """
    counted = text.count(" ") + 1 + sum(map(text.count, MARKS))
    least = (
        len(text) // LONG_BYTES
        if text.isascii()
        else len(text.encode(errors="replace")) // WIDE_BYTES
    )
    return ENDS + max(counted, least)


def texts_tokens(texts: Iterable[str]) -> int:
    """Estimated tokens of all texts together."""
    return sum(map(text_tokens, texts))
