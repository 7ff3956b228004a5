"""What a strategy is: a rule that scores the candidates of one fleet and picks one of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from penstock.router.routing.fleet import Fleet, Member

WAIT = -1
"""Position that asks to wait in the router until an instance is free."""


class Pick(StrEnum):
    """Why a candidate was picked, as receipts and metrics say it."""

    LOWEST_SCORE = "lowest score"
    IN_TURN = "in turn"
    ONLY_CANDIDATE = "only candidate"
    BETTER_OF_TWO = "better of two"
    WEIGHTED_TURN = "weighted turn"
    ALL_HOT = "all hot: shortest queue"
    COLDEST = "cold: lowest latency"
    FREE_AND_FASTEST = "free and fastest"
    ALL_BUSY = "all busy: waits in the router"
    NOT_BOUND_LATE = "late binding does not fit: lowest score"


class RequestFeatures(NamedTuple):
    """What a strategy may know of the request."""

    tokens: int = 0
    urgency: float = 0.5
    """0 for the lowest priority class, 1 for the highest."""
    sizes: Mapping[str, float] | None = None
    """Size in mean requests by instance, where they differ: less where a prefix is there already.
    """


class ScoredPick(NamedTuple):
    """A strategy's choice."""

    scores: list[float]
    """One a candidate; lower is better."""
    position: int
    """Of the picked candidate, or WAIT."""
    why: Pick


class Answer(NamedTuple):
    """What is known of an answer when it is there. Seconds."""

    now: float
    took_s: float
    away_s: float | None
    """Time that the request was neither queued nor computed; None where the instance did not say
    how long it computed.
    """


class Strategy(Protocol):
    """A rule for one fleet."""

    name: str
    waits: bool
    """Whether it may ask that a request waits in the router until an instance is free."""

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        """Score the candidates and pick one of them, or WAIT."""
        ...

    def answered(self, member: Member, fleet: Fleet, answer: Answer) -> None:
        """An instance has answered: what the strategy learns from that."""
        ...


class Forgetful:
    """A strategy that remembers nothing."""

    waits = False

    def answered(self, member: Member, fleet: Fleet, answer: Answer) -> None:
        """Nothing is learned."""


def lowest(scores: Sequence[float], rng: random.Random) -> int:
    """Position of the lowest score, ties at random."""
    least = min(scores)
    position = scores.index(least)
    if scores.count(least) > 1:
        return rng.choice([index for index, score in enumerate(scores) if score == least])
    return position
