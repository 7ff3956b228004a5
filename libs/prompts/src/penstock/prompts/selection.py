"""Lossy and opt-in: keep the passages of a tool result that a question needs.

Passages are ranked by BM25, together with an embedder's similarity where there is one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from operator import mul

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""Similarity of a question to each passage, about 0 to 1; equal values express no preference."""
Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""One vector for each text."""

K1, B = 1.2, 0.75
"""BM25's usual constants: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009."""
MIN_PLURAL_LENGTH = 4

_WORD = re.compile(r"\w+", re.UNICODE)
_EMPTY_LINE = re.compile(r"\n\s*\n")


def words(text: str) -> list[str]:
    """Lower-case words without a plural's `s`, so that `flight` and `flights` are equal."""
    return [
        word[:-1] if len(word) >= MIN_PLURAL_LENGTH and word.endswith("s") else word
        for word in _WORD.findall(text.lower())
    ]


class Bm25Index:
    """The words of passages, of which many questions may be asked."""

    def __init__(self, counts: Sequence[Counter[str]]) -> None:
        """`counts`: how often each word stands in each passage."""
        lengths = [count.total() for count in counts]
        mean_length = sum(lengths) / max(1, len(lengths)) or 1.0
        self._norms = [K1 * (1 - B + B * length / mean_length) for length in lengths]
        self._frequencies: dict[str, dict[int, int]] = {}
        """By word, how often it stands in which passage."""
        for place, count in enumerate(counts):
            for word, frequency in count.items():
                self._frequencies.setdefault(word, {})[place] = frequency

    def scores(self, question: str) -> list[float]:
        """BM25 score of each passage for a question."""
        scores = [0.0] * len(self._norms)
        for word in sorted(set(words(question))):
            containing = self._frequencies.get(word, {})
            idf = math.log(1 + (len(scores) - len(containing) + 0.5) / (len(containing) + 0.5))
            for place, frequency in containing.items():
                scores[place] += idf * frequency * (K1 + 1) / (frequency + self._norms[place])
        return scores


def bm25(question: str, passages: Sequence[str]) -> list[float]:
    """BM25 score of each passage for the question."""
    return Bm25Index([Counter(words(passage)) for passage in passages]).scores(question)


def rank_passages(
    question: str, passages: Sequence[str], similarity: Similarity | None = None
) -> list[int]:
    """Positions of the passages, the most useful first.

    With a similarity, both scores are scaled to 0..1 and added.
    """
    scores = _scaled(bm25(question, passages))
    if similarity is not None:
        near = _scaled(similarity(question, passages))
        scores = [one + other for one, other in zip(scores, near, strict=True)]
    return sorted(range(len(passages)), key=lambda index: (-scores[index], index))


def _scaled(scores: Sequence[float]) -> list[float]:
    low = min(scores, default=0.0)
    high = max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]


def similarity_by(embed: Embedder) -> Similarity:
    """Similarity as the cosine of the question's vector and each passage's."""

    def similarity(question: str, passages: Sequence[str]) -> list[float]:
        question_vector, *passage_vectors = embed([question, *passages])
        return [_cosine(question_vector, vector) for vector in passage_vectors]

    return similarity


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    product: float = sum(map(mul, a, b))
    return product / (math.hypot(*a) * math.hypot(*b) or 1.0)


def select_passages(ranking: Sequence[int], sizes: Sequence[int], keep_share: float) -> list[int]:
    """Positions to keep, in the text's order.

    They are taken by rank as long as all together have at most `keep_share` of the tokens; the best
    one always stays.

    Args:
        ranking: positions, the most useful first.
        sizes: tokens of each passage, by position.
        keep_share: 0 to 1.
    """
    budget = keep_share * sum(sizes)
    kept: list[int] = []
    used = 0
    for index in ranking:
        if not kept or used + sizes[index] <= budget:
            kept.append(index)
            used += sizes[index]
    return sorted(kept)


def split_passages(text: str) -> list[str]:
    """The parts of a text between empty lines."""
    return [part for part in _EMPTY_LINE.split(text) if part.strip()]
