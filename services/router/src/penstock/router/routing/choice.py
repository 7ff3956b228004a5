"""The choice of an instance: who may serve a request, and who should.

Pure functions over a fleet; `now` (monotonic seconds) and `rng` are arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategy import WAIT, Pick, RequestFeatures, Strategy
from penstock.rpc.call import NORMAL
from penstock.service.purity import pure

YOUNG_FLEET, LAST_RESORT = "young fleet", "last resort"
"""Exceptions to the rules of who is left out."""
MAX_CANDIDATES = 32
"""Candidates that are all looked at; of more, so many are taken at random."""


class Why(Enum):
    """Why an instance is left out."""

    LEASE_EXPIRED = "lease has run out"
    DRAINING = "draining"
    EJECTED = "ejected after failures"
    RESTING = "resting"
    ON_TRIAL = "on trial: one request at a time"
    JOINING = "joining: one request at a time"
    SLOW_START = "joining: slow start"
    TRIED = "tried already"
    SAFER_IS_FREE = "spot: a safer instance is free for this stream"
    LACKS_CAPABILITY = "lacks"
    TOO_LONG = "lacks room for"
    LACKS_INPUT = "takes no"


UNABLE = frozenset({Why.LACKS_CAPABILITY, Why.TOO_LONG, Why.LACKS_INPUT})
"""Exclusions that waiting does not mend: the instance is not able to serve the request."""


class Exclusion(NamedTuple):
    """An instance that was left out."""

    instance_id: str
    why: Why
    detail: str = ""

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.why.value} {self.detail}" if self.detail else self.why.value


class Candidate(NamedTuple):
    """What a candidate was like when the choice was made."""

    instance_id: str
    score: float
    own: int
    others: float
    speed: float
    concurrency: int
    load_at: float
    """When it last reported its load."""


class Chosen(NamedTuple):
    """An instance is to serve the request."""

    member: Member
    pick: Pick
    score: float
    at: float
    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...] = ()
    exception: str = ""
    """Why an instance was taken that is left out otherwise: every one is so new, or none is left
    that neither failed nor rests.
    """

    @property
    def branch(self) -> str:
        """What decided, as receipts and metrics say it."""
        return f"{self.exception}: {self.pick.value}" if self.exception else self.pick.value


@dataclass(frozen=True, slots=True)
class Queued:
    """The request is to wait in the router until an instance is free."""

    at: float
    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...] = ()
    branch: str = Pick.ALL_BUSY.value


@dataclass(frozen=True, slots=True)
class NoInstance:
    """Nothing can serve the request now."""

    at: float
    retry_after_s: float
    excluded: tuple[Exclusion, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def unable(self) -> bool:
        """Whether there are instances, and none is able to serve the request at any time."""
        return bool(self.excluded) and all(one.why in UNABLE for one in self.excluded)

    @property
    def branch(self) -> str:
        """What decided, as receipts and metrics say it."""
        if not self.excluded:
            return "no instance serves this"
        reasons = {one.text for one in self.excluded}
        return reasons.pop() if len(reasons) == 1 else "no instance can serve this now"


InstanceChoice = Chosen | Queued | NoInstance

Fits = Callable[[str], Exclusion | None]
"""Why an instance, by its id, is not to serve this request; None when it may."""


@pure
def choose(
    fleet: Fleet,
    strategy: Strategy,
    request: RequestFeatures,
    now: float,
    rng: random.Random,
    *,
    tried: Collection[str] = (),
    fits: Fits | None = None,
) -> InstanceChoice:
    """Filter, score, pick.

    Args:
        tried: instances that were given this request already.
        fits: what the request needs of an instance; None when any will do.
    """
    fleet.refresh(now)
    candidates, excluded = _filtered(fleet, now, tried, fits)
    exception = ""
    if not candidates:
        exception = YOUNG_FLEET
        candidates = _only_young(fleet, now, tried, fits)
    if not candidates and not tried:
        exception = LAST_RESORT
        candidates = _last_resort(fleet, now, fits)
    if not candidates:
        return NoInstance(now, _retry_after_s(fleet, now), tuple(excluded))
    if len(candidates) > MAX_CANDIDATES:
        candidates = rng.sample(candidates, MAX_CANDIDATES)
    scores, position, why = strategy.choose(candidates, fleet, request, rng)
    rows = tuple(
        [
            Candidate(m.id, score, m.own, m.others, m.speed, m.concurrency, m.load_at)
            for m, score in zip(candidates, scores, strict=True)
        ]
    )
    if position == WAIT:
        return Queued(now, rows, tuple(excluded))
    member, score = candidates[position], scores[position]
    return Chosen(member, why, score, now, rows, tuple(excluded), exception)


def _filtered(
    fleet: Fleet, now: float, tried: Collection[str], fits: Fits | None
) -> tuple[list[Member], list[Exclusion]]:
    candidates: list[Member] = []
    excluded: list[Exclusion] = []
    for member in fleet.members:
        unsure = fleet.resting or not member.settled
        if unsure and (why := closed_because(member, fleet, now)):
            excluded.append(Exclusion(member.id, why))
        elif member.id in tried:
            excluded.append(Exclusion(member.id, Why.TRIED))
        elif fits is not None and (exclusion := fits(member.id)):
            excluded.append(exclusion)
        else:
            candidates.append(member)
    return candidates, excluded


@pure
def closed_because(member: Member, fleet: Fleet, now: float) -> Why | None:
    """Why an instance may take nothing now; None when it may."""
    if member.lost:
        return Why.LEASE_EXPIRED
    if member.leaving:
        return Why.DRAINING
    if now < member.ejected_until:
        return Why.EJECTED
    if fleet.rests(member, now):
        return Why.RESTING
    if member.on_trial:
        return Why.ON_TRIAL if member.own else None
    health = fleet.health
    if member.successes < health.successes_to_join:
        return Why.JOINING if member.own else None
    if member.successes < health.slow_start_successes and member.own >= member.successes - 1:
        return Why.SLOW_START
    return None


def _only_young(
    fleet: Fleet, now: float, tried: Collection[str], fits: Fits | None
) -> list[Member]:
    """Instances that are only too new: with none proven, serving beats waiting for proof."""
    return [
        member
        for member in fleet.members
        if not (member.lost or member.leaving or member.on_trial or now < member.ejected_until)
        and not fleet.rests(member, now)
        and member.id not in tried
        and (fits is None or fits(member.id) is None)
    ]


def _last_resort(fleet: Fleet, now: float, fits: Fits | None) -> list[Member]:
    """The instance that is to be back first, where all are ejected, on trial or resting: the last
    one of a model is never left out, and what it says itself is the better answer to the caller.
    """
    there = [
        member
        for member in fleet.members
        if closed_because(member, fleet, now) in (Why.EJECTED, Why.RESTING, Why.ON_TRIAL)
        and (fits is None or fits(member.id) is None)
    ]
    return [min(there, key=lambda member: _back_at(member, fleet))] if there else []


def _back_at(member: Member, fleet: Fleet) -> float:
    return max(member.ejected_until, fleet.resting.get(member.id, member.ejected_until))


def _retry_after_s(fleet: Fleet, now: float) -> float:
    """When it is worth asking again: as soon as an instance that is ejected or rests is back."""
    if not fleet.members:
        return 1.0
    back = [_back_at(member, fleet) - now for member in fleet.members]
    return max(0.05, min([wait_s for wait_s in back if wait_s > 0], default=1.0))


@pure
def expected_wait_s(member: Member, priority: int = NORMAL) -> float:
    """Seconds that a request sent now would wait there before its own service, at the learned
    speed, if the less urgent let it pass.

    Of what other routers sent only the number is known. It is taken to be as urgent as ours, and is
    not counted before an urgent request: the queue before the instance knows better.
    """
    ahead = float(member.own_as_urgent(priority))
    if priority <= NORMAL:
        ahead += member.others * (ahead / member.own if member.own else 1.0)
    over = ahead + 1.0 - member.concurrency
    return max(0.0, over) / (member.concurrency * member.speed) if member.speed > 0.0 else 0.0


@pure
def queue_wait_s(fleet: Fleet, ahead: int) -> float:
    """Seconds that a call that queues now would wait while `ahead` calls go before it."""
    rate = sum(
        one.concurrency * one.speed for one in fleet.members if not (one.lost or one.leaving)
    )
    return (ahead + 1) / rate if rate > 0.0 else 0.0


class TooLong(Enum):
    """Why a request is refused before it queues."""

    FOR_DEADLINE = "the queue is longer than the time left"
    FOR_CLASS = "the queue is longer than this priority may join"


@pure
def too_long(wait_s: float, remaining_s: float, limit_s: float) -> TooLong | None:
    """Whether a request should be refused before it queues.

    Args:
        wait_s: expected wait at the best instance.
        remaining_s: time left until the request's deadline.
        limit_s: longest wait that its priority class may join.
    """
    if wait_s > remaining_s:
        return TooLong.FOR_DEADLINE
    if wait_s > limit_s:
        return TooLong.FOR_CLASS
    return None


@dataclass(slots=True)
class ExtrasBudget:
    """A share of the traffic that may be spent on extras, retries or hedges: each first try earns
    `share`, each extra costs 1.
    """

    share: float
    max_saved: float = 10.0
    saved: float = 0.0

    def __post_init__(self) -> None:
        self.saved = self.max_saved if self.share > 0 else 0.0

    def earn(self) -> None:
        """A first try went out."""
        self.saved = min(self.max_saved, self.saved + self.share)

    def spend(self) -> bool:
        """Take an extra try; False where none is left."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True
