"""How many tokens a text has, where no tokenizer is at hand: a bound and an estimate, by script.

Tokenizers of language models are byte-level BPE: no token is shorter than a byte, and what a
character takes depends on how much of its script the vocabulary was trained on. Each UTF-8 byte has
a weight by what it begins: a letter, a digit, a mark, or by its lead byte a character of a block of
Unicode; bytes that continue a character weigh nothing. The weights of the bound were set so that
four vocabularies of 50,000 to 200,000 tokens and a word-piece one stay below it on prose of 20
languages, code, JSON, logs, identifiers and random letters; those of the estimate so that English,
code and JSON come out within 6 % (docs/decisions/0086). One pass in C: 10 ns a byte.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping

ESTIMATE_UNIT, BOUND_UNIT = 64, 8
"""Weights are in these parts of a token."""
CHARACTERS = {
    " ": (2, 2),
    string.ascii_lowercase: (14, 6),
    string.ascii_uppercase: (28, 8),
    string.digits: (30, 8),
    string.punctuation: (40, 8),
}
"""Weights of ASCII characters in the estimate and in the bound; control characters and line ends
weigh as marks do.
"""
LEAD_BYTES: Mapping[range, tuple[int, int]] = {
    range(0xC2, 0xCD): (40, 16),  # Latin with marks
    range(0xCD, 0xDC): (28, 12),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    range(0xDC, 0xE0): (60, 16),  # Syriac and others of two bytes
    range(0xE0, 0xE1): (56, 20),  # scripts of India, Thai, Lao
    range(0xE1, 0xE3): (64, 24),  # Georgian, Khmer, Vietnamese; marks, arrows, symbols
    range(0xE3, 0xEA): (64, 16),  # kana and ideographs
    range(0xEA, 0xF0): (64, 24),  # Hangul, full-width forms
    range(0xF0, 0xF5): (160, 32),  # emoji and rare ideographs
}
"""Weights of other characters, by the first byte that UTF-8 gives them."""


def _table(column: int) -> bytes:
    weights = [0] * 256
    weights[:128] = [CHARACTERS[string.punctuation][column]] * 128
    for characters, pair in CHARACTERS.items():
        for character in characters:
            weights[ord(character)] = pair[column]
    for lead_bytes, pair in LEAD_BYTES.items():
        for byte in lead_bytes:
            weights[byte] = pair[column]
    return bytes(weights)


_ESTIMATE, _BOUND = _table(0), _table(1)


def token_bound(text: str) -> int:
    """Tokens that a text does not exceed, whatever the tokenizer of a language model."""
    weight = sum(text.encode(errors="surrogatepass").translate(_BOUND))
    # Of several spaces in a row, all but the last may be tokens of their own.
    return -(-weight // BOUND_UNIT) + 2 * text.count("  ")


def estimated_tokens(text: str) -> int:
    """About so many tokens a language model's tokenizer makes of a text; rounded up."""
    return -(-sum(text.encode(errors="surrogatepass").translate(_ESTIMATE)) // ESTIMATE_UNIT)


def token_bounds(texts: Iterable[str]) -> int:
    """Tokens that the texts together do not exceed."""
    return sum(map(token_bound, texts))
