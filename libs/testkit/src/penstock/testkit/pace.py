"""How fast a scripted upstream answers, and how long its answers are, request by request.

From a recorded trace, or drawn from distributions; deterministic in both cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Pace:
    """The timing of one answer.

    Attributes:
        first_token_s: seconds to the first piece.
        per_word_s: seconds between two words.
        words: length of the answer; 0 leaves the length that the script gives.
    """

    first_token_s: float = 0.0
    per_word_s: float = 0.0
    words: int = 0


Paces = Callable[[int], Pace]
"""The pace of a request by its number, counted from 0."""


def trace_paces(trace: Sequence[Pace]) -> Paces:
    """The rows of a trace in order, repeated from the beginning."""
    return lambda number: trace[number % len(trace)]


def log_normal_paces(seed: int, median: Pace, spread: float = 0.5) -> Paces:
    """Times to the first piece and lengths that are log-normal about their medians.

    Measured ones are. `spread` is the standard deviation of the logarithm.
    """

    def pace(number: int) -> Pace:
        rng = Random(f"{seed}:{number}")
        time_factor = math.exp(rng.gauss(0.0, spread))
        length_factor = math.exp(rng.gauss(0.0, spread))
        words = max(1, round(median.words * length_factor)) if median.words else 0
        return Pace(median.first_token_s * time_factor, median.per_word_s, words)

    return pace


def repeat_to_length(text: str, words: int) -> str:
    """The text cut or repeated to so many words; unchanged where `words` is 0."""
    if not words:
        return text
    known = text.split(" ")
    return " ".join(known[number % len(known)] for number in range(words))
