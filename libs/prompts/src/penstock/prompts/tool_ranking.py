"""How probable it is of each of an agent's tools that a request needs it.

A conditional logit (McFadden, "Conditional Logit Analysis of Qualitative Choice Behavior", 1974)
of two scores: the similarity of an encoder's embeddings, and BM25 over everything that a schema
says. A tool's probability is e to its weighted scores, as a share of all tools'. BM25 is divided by
the best tool's score and a constant: where all tools match badly, it prefers none by much.

The weights were fitted with all-MiniLM-L6-v2 on half of BFCL's tool sets (`python -m penstock.bench
tool-pruning` fits them anew and reports on the other half). That encoder reads English: in other
scripts it has nothing to go by, and `is_readable` says so.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.prompts.conversation import ToolSpec
from penstock.prompts.selection import words

SIMILARITY_WEIGHT = 13.9
WORDS_WEIGHT = 5.9
"""The logit's weights: of the cosine, and of the share of the best BM25 score."""
EVIDENCE = 2.0
"""BM25 score of the best tool at which its share is one half."""
MAX_OTHER_SCRIPT = 0.3
"""Share of letters outside the Latin script from which a text is not read."""
LAST_LATIN = 0x24F
MAX_DEPTH = 6
"""Levels of a schema that are read."""

_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_JOINT = re.compile(r"[_./-]+")


def spaced(name: str) -> str:
    """The words of an identifier: `getUser_id` is `get User id`."""
    return _JOINT.sub(" ", _CASE.sub(" ", name)).strip()


def text_to_embed(tool: ToolSpec) -> str:
    """What the encoder reads of a tool: its name, its description, the names of its parameters."""
    names = ", ".join(spaced(name) for name, _ in _parameters(tool))
    return f"{spaced(tool.name)}: {tool.description} {names}".strip()


def text_to_match(tool: ToolSpec) -> str:
    """What BM25 reads of a tool: what the encoder reads, and all that is said of parameters."""
    said = " ".join(text for _, schema in _parameters(tool) for text in _said(schema))
    return f"{text_to_embed(tool)} {said}"


def _said(schema: dict[str, Any]) -> Iterator[str]:
    yield str(schema.get("description", ""))
    values = schema.get("enum")
    if isinstance(values, list):
        yield from map(str, values)


def _parameters(tool: ToolSpec) -> list[tuple[str, dict[str, Any]]]:
    """The parameters with their schemas, nested ones too; none where the schema is no JSON."""
    try:
        schema = json.loads(tool.parameters) if tool.parameters else None
    except ValueError:
        return []
    return list(_properties(schema, MAX_DEPTH))


def _properties(schema: object, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(schema, dict) or depth == 0:
        return
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        yield name, inner if isinstance(inner, dict) else {}
        yield from _properties(inner, depth - 1)
    yield from _properties(schema.get("items"), depth - 1)


def is_readable(text: str) -> bool:
    """Whether most letters of a text are of the script that the encoder knows."""
    letters = [letter for letter in text if letter.isalpha()]
    others = sum(ord(letter) > LAST_LATIN for letter in letters)
    return bool(letters) and others <= MAX_OTHER_SCRIPT * len(letters)


def word_counts(tool: ToolSpec) -> Counter[str]:
    """How often each word stands in what BM25 reads of a tool."""
    return Counter(words(text_to_match(tool)))


def features(
    similarities: Sequence[float], word_scores: Sequence[float]
) -> list[tuple[float, float]]:
    """The two scores of each tool that the logit weighs.

    Args:
        similarities: cosines of the request's embedding and each tool's.
        word_scores: BM25 of the request and each tool.
    """
    scale = max(word_scores, default=0.0) + EVIDENCE
    return [
        (cosine, score / scale) for cosine, score in zip(similarities, word_scores, strict=True)
    ]


def probabilities(similarities: Sequence[float], word_scores: Sequence[float]) -> list[float]:
    """The probability of each tool to be the one needed; they sum to 1. Arguments: `features`."""
    logits = [
        SIMILARITY_WEIGHT * cosine + WORDS_WEIGHT * share
        for cosine, share in features(similarities, word_scores)
    ]
    highest = max(logits, default=0.0)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
