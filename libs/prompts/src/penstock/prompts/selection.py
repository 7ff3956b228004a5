"""Lossy and opt-in: keep the passages that a question needs.

BM25, joined with an embedder's similarity where one is given.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from operator import mul

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""Similarity of a question to each passage, about 0 to 1; all the same for no opinion."""
Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""One vector for each text: the local embedder."""

K1, B = 1.2, 0.75
"""BM25's usual constants (Robertson and Zaragoza, 2009)."""

_WORD = re.compile(r"\w+", re.UNICODE)


def words(text: str) -> list[str]:
    """Lower-case words; a crude plural cut joins `flight` and `flights`."""
    return [
        word[:-1] if len(word) > 3 and word.endswith("s") else word
        for word in _WORD.findall(text.lower())
    ]


def bm25(question: str, passages: Sequence[str]) -> list[float]:
    """BM25 score of each passage for the question."""
    documents = [Counter(words(passage)) for passage in passages]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / max(1, len(lengths)) or 1.0
    scores = [0.0] * len(passages)
    for word in set(words(question)):
        holders = sum(1 for document in documents if word in document)
        idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
        for index, document in enumerate(documents):
            count = document[word]
            scores[index] += (
                idf * count * (K1 + 1) / (count + K1 * (1 - B + B * lengths[index] / mean))
            )
    return scores


def ranked(
    question: str, passages: Sequence[str], similarity: Similarity | None = None
) -> list[int]:
    """Positions of the passages, the most useful first.

    With an embedder both scores are brought to 0..1 and added.
    """
    scores = _unit(bm25(question, passages))
    if similarity is not None:
        scores = [
            lexical + near
            for lexical, near in zip(scores, _unit(similarity(question, passages)), strict=True)
        ]
    return sorted(range(len(passages)), key=lambda index: (-scores[index], index))


def _unit(scores: Sequence[float]) -> list[float]:
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]


def similarity_by(embed: Embedder) -> Similarity:
    """Cosine of the question's vector and each passage's."""

    def similarity(question: str, passages: Sequence[str]) -> list[float]:
        asked, *others = embed([question, *passages])
        return [_cosine(asked, vector) for vector in others]

    return similarity


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    product: float = sum(map(mul, a, b))
    return product / (math.hypot(*a) * math.hypot(*b) or 1.0)


def select(order: Sequence[int], sizes: Sequence[int], keep_share: float) -> list[int]:
    """Positions to keep, in their own order: by rank until `keep_share` of all tokens is used; the
    best one always stays.
    """
    budget = keep_share * sum(sizes)
    kept: list[int] = []
    used = 0
    for index in order:
        if not kept or used + sizes[index] <= budget:
            kept.append(index)
            used += sizes[index]
    return sorted(kept)


def paragraphs(text: str) -> list[str]:
    """The passages of a tool result: texts parted by an empty line."""
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]
