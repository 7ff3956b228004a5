"""What a strategy is: a rule that scores the candidates of one fleet and picks one of them. And the
default one, least added delay: send the request where it adds the least delay to everybody.

With h(k) = k · max(1, k / C) the requests that k requests delay each other by at C slots, an
instance of speed v with n in flight is scored [h(n + 1) − h(n)] / v (see the decision on least
added delay).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from penstock.router.routing.fleet import Fleet, Member
from penstock.service.purity import pure

WAIT = -1
"""Position that asks to wait in the router until an instance is free."""
TIE = 0.001
"""Weight of what is in flight among instances that would add the same delay."""


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


@pure
class LeastAddedDelay(Forgetful):
    """The default strategy, see the head of this module."""

    name = "least_added_delay"
    why = Pick.LOWEST_SCORE

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        sizes = request.sizes
        if sizes is not None:
            scores = [sized_delay(member, sizes.get(member.id, 1.0)) for member in candidates]
            return ScoredPick(scores, lowest(scores, rng), self.why)
        scores = []
        for member in candidates:
            n, slots = member.own + member.others, member.concurrency
            if n >= slots:
                added = (2.0 * n + 1.0) / slots
            elif n + 1.0 <= slots:
                added = 1.0
            else:
                added = (n + 1.0) * (n + 1.0) / slots - n
            scores.append((added + TIE * n) / member.speed)
        return ScoredPick(scores, lowest(scores, rng), self.why)


@pure
def sized_delay(member: Member, size: float) -> float:
    """An instance's score for a request of `size` mean requests: it waits for those before it,
    works, and those after it wait for its size.
    """
    n, slots = member.own + member.others, member.concurrency
    if n < slots:
        return (size + TIE * n) / member.speed
    return ((n + (n + 1.0) * size) / slots + TIE * n) / member.speed
