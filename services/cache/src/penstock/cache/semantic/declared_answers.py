"""The answers that a request itself allows, as words.

The JSON schema of a closed answer may list its values, such as the intents of a classifier. Their
words are evidence before anything was learnt: a prompt whose voted answer is further from it than
another allowed one is probably answered wrongly, also where that other answer was never seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from penstock.cache.semantic.classes import Floats

MIN_ANSWERS, MAX_ANSWERS = 2, 256
"""Fewer values are no choice; more are not embedded."""
MAX_SCHEMA_CHARACTERS = 32_768
"""Longer schemas are not read."""
MAX_CHARACTERS = 64
"""Longer values are no names."""
EMBEDDED_AT_ONCE = 16
"""Answers that one look-up embeds, some 15 ms: a long list is embedded by the first look-ups."""
SEPARATORS = re.compile(r"[\s_./:-]+|(?<=[a-z])(?=[A-Z])")
NO_MARGIN = 0.0
"""Margin of an answer that no schema allows; also where two allowed ones are equally near."""


def declared_answers(schema_json: str) -> tuple[str, ...]:
    """The values of the only list (`enum`) in a JSON schema.

    Empty where there is none, or more than one, or where it is too long or holds more than names.
    """
    return () if len(schema_json) > MAX_SCHEMA_CHARACTERS else _declared(schema_json)


@lru_cache(maxsize=512)
def _declared(schema_json: str) -> tuple[str, ...]:
    try:
        found = list(_enums(json.loads(schema_json or "{}")))
    except (ValueError, RecursionError):
        return ()
    if len(found) != 1 or not all(_is_name(value) for value in found[0]):
        return ()
    answers = tuple(dict.fromkeys(str(value) for value in found[0]))
    return answers if MIN_ANSWERS <= len(answers) <= MAX_ANSWERS else ()


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_CHARACTERS and bool(_words(value))


def _words(value: str) -> str:
    """The words of a name: "card arrival" of `card_arrival` and of `cardArrival`."""
    return " ".join(SEPARATORS.split(value)).strip()


def _enums(schema: object) -> Iterator[list[object]]:
    """The lists of allowed values in a schema, at any depth."""
    if isinstance(schema, dict):
        if isinstance(schema.get("enum"), list):
            yield schema["enum"]
        for value in schema.values():
            yield from _enums(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _enums(value)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


@dataclass(frozen=True, slots=True)
class DeclaredAnswers:
    """Allowed answers, and the vectors of the words of the first of them, a row each."""

    values: tuple[str, ...]
    vectors: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def is_embedded(self) -> bool:
        """Whether each answer has its vector."""
        return len(self.vectors) == len(self.values)

    def with_more_vectors(self, embed: Callable[[str], Floats]) -> DeclaredAnswers:
        """The same with the vectors of the next `EMBEDDED_AT_ONCE` answers."""
        done = len(self.vectors)
        more = [embed(_words(value)) for value in self.values[done : done + EMBEDDED_AT_ONCE]]
        return DeclaredAnswers(self.values, np.stack([*self.vectors, *more]))

    def margin(self, vector: Floats, canonical_answer: str) -> float:
        """The cosine of a prompt and the words of an answer, less that of the nearest other allowed
        one; `NO_MARGIN` where the answer has none of the allowed values, or several, and until all
        have vectors.
        """
        named = _named_in(canonical_answer).intersection(self.values)
        if not self.is_embedded or len(named) != 1:
            return NO_MARGIN
        cosines = self.vectors @ vector
        place = self.values.index(named.pop())
        own = float(cosines[place])
        cosines[place] = -1.0
        return own - float(cosines.max())


def _named_in(canonical_answer: str) -> set[str]:
    """The strings in a closed answer; none in free text."""
    if not canonical_answer.startswith("["):
        return set()
    return set(_strings(json.loads(canonical_answer)[1]))
