"""The decision: who may serve, who should, and what to do when it fails.

Plain functions on a fleet; `now` and `rng` are arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategies import WAIT, Ask, Strategy

SCAN = 32
"""Candidates that are all looked at; of more, this many are taken at random."""

Row = tuple[str, float, int, float, float, int, float]
"""(instance, score, own in flight, others in flight, speed, concurrency, time of its last report)
of one candidate at the pick.
"""


@dataclass(frozen=True, slots=True)
class Pick:
    """The verdict: an instance, or none and why; and all that it was made from."""

    member: Member | None
    branch: str
    at: float = 0.0
    score: float = 0.0
    rows: tuple[Row, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    retry_after_s: float = 0.0

    @property
    def held(self) -> bool:
        """True when late binding asks to wait for a free instance."""
        return self.member is None and self.branch.startswith("all busy")


def closed_because(member: Member, fleet: Fleet, now: float) -> str:
    """Why an instance may take nothing now; empty when it may."""
    if member.lost:
        return "lease has run out"
    if member.leaving:
        return "draining"
    if now < member.ejected_until:
        return "ejected after failures"
    if member.on_trial:
        return "on trial: one request at a time" if member.own else ""
    health = fleet.health
    if member.successes < health.successes_to_join:
        return "joining: one request at a time" if member.own else ""
    if member.successes < health.slow_start_successes and member.own >= member.successes - 1:
        return "joining: slow start"
    return ""


Fits = Callable[[str], str]
"""Why an instance, by id, cannot serve this request; empty when it can."""


def choose(
    fleet: Fleet,
    strategy: Strategy,
    ask: Ask,
    now: float,
    rng: random.Random,
    *,
    without: Collection[str] = (),
    fits: Fits | None = None,
) -> Pick:
    """Filter, score, pick.

    Args:
        without: instances already tried for this request.
        fits: what the request needs of an instance; None when any will do.
    """
    fleet.refresh(now)
    candidates, left_out = [], []
    for member in fleet.members:
        if not member.settled and (reason := closed_because(member, fleet, now)):
            left_out.append((member.id, reason))
        elif member.id in without:
            left_out.append((member.id, "tried already"))
        elif fits is not None and (reason := fits(member.id)):
            left_out.append((member.id, reason))
        else:
            candidates.append(member)
    branch = ""
    if not candidates:
        candidates = _last_resort(fleet, now, without, fits)
        branch = "young fleet: "
        if not candidates:
            return _nobody(fleet, left_out, now)
    if len(candidates) > SCAN:
        candidates = rng.sample(candidates, SCAN)
    scores = strategy.scores(candidates, fleet, ask)
    position, why = strategy.pick(candidates, scores, fleet, rng)
    rows = tuple(
        [
            (m.id, score, m.own, m.others, m.speed, m.concurrency, m.load_at)
            for m, score in zip(candidates, scores, strict=True)
        ]
    )
    if position == WAIT:
        return Pick(None, why, now, rows=rows, left_out=tuple(left_out))
    return Pick(candidates[position], branch + why, now, scores[position], rows, tuple(left_out))


def _last_resort(
    fleet: Fleet, now: float, without: Collection[str], fits: Fits | None
) -> list[Member]:
    """Instances that are only young: with nobody proven, serving beats waiting for proof."""
    return [
        member
        for member in fleet.members
        if not (member.lost or member.leaving or member.on_trial or now < member.ejected_until)
        and member.id not in without
        and (fits is None or not fits(member.id))
    ]


def _nobody(fleet: Fleet, left_out: list[tuple[str, str]], now: float) -> Pick:
    """Nothing can serve: say why, and when it is worth asking again."""
    back = [
        member.ejected_until - now
        for member in fleet.members
        if member.ejected_until > now and not member.lost
    ]
    if not fleet.members:
        return Pick(None, "no instance serves this", now, retry_after_s=1.0)
    reason = (
        left_out[0][1]
        if len({why for _, why in left_out}) == 1
        else "no instance can serve this now"
    )
    return Pick(
        None, reason, now, left_out=tuple(left_out), retry_after_s=max(0.05, min(back, default=1.0))
    )


def expected_wait_s(member: Member) -> float:
    """Seconds that a request sent now would wait there before its own service, at the learned
    speed.
    """
    over = member.own + member.others + 1.0 - member.concurrency
    return max(0.0, over) / (member.concurrency * member.speed) if member.speed > 0.0 else 0.0


def held_wait_s(fleet: Fleet, ahead: int) -> float:
    """Seconds that a call held now would wait while so many go before it, at the learned speed of
    all.
    """
    rate = sum(
        member.concurrency * member.speed
        for member in fleet.members
        if not (member.lost or member.leaving)
    )
    return (ahead + 1) / rate if rate > 0.0 else 0.0


@dataclass(slots=True)
class Budget:
    """A share of the traffic that may be spent on extras: each first try earns `share`, each extra
    costs 1. Retries and hedges.
    """

    share: float
    most: float = 10.0
    tokens: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.most if self.share > 0 else 0.0

    def earn(self) -> None:
        """A first try went out."""
        self.tokens = min(self.most, self.tokens + self.share)

    def spend(self) -> bool:
        """True when an extra try may go out."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def shed(wait_s: float, remaining_s: float, limit_s: float) -> str:
    """Why a request should be refused before it queues; empty when it may go on.

    Args:
        wait_s: expected wait at the best instance.
        remaining_s: time left until the request's deadline.
        limit_s: longest wait that its priority class is allowed to join.
    """
    if wait_s > remaining_s:
        return "the queue is longer than the time left"
    if wait_s > limit_s:
        return "the queue is longer than this priority may join"
    return ""
