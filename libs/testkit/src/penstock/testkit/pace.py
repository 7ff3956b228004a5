"""How fast a scripted upstream answers and how much it says, request by request: from a trace, or
from a model of one. Deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first piece, seconds between words, and the answer's words; 0 words leave the
    script's own length.
    """

    first_token_s: float = 0.0
    per_word_s: float = 0.0
    words: int = 0


Paces = Callable[[int], Pace]
"""The pace of a request by its number, from 0."""


def trace_paces(trace: Sequence[Pace]) -> Paces:
    """The rows of a trace in order, and again from its beginning."""
    return lambda number: trace[number % len(trace)]


def log_normal_paces(seed: int, median: Pace, spread: float = 0.5) -> Paces:
    """First pieces and lengths spread log-normally about their medians, as measured ones are;
    `spread` is the logarithm's deviation.
    """

    def pace(number: int) -> Pace:
        rng = Random(f"{seed}:{number}")
        slower, longer = math.exp(rng.gauss(0.0, spread)), math.exp(rng.gauss(0.0, spread))
        return Pace(
            median.first_token_s * slower,
            median.per_word_s,
            max(1, round(median.words * longer)) if median.words else 0,
        )

    return pace


def repeat_to_length(text: str, words: int) -> str:
    """So many words of a text, said again from its beginning where it is shorter."""
    known = text.split(" ")
    return " ".join(known[number % len(known)] for number in range(words)) if words else text
