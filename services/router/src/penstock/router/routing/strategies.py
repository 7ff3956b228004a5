"""Nine ways to choose among candidates, behind one interface: score them, then pick by the scores.

Plain: no clock, no chance of its own.

A score is always "lower is better". `LeastAddedDelay` is the default; the others are here to be
compared with it, and to be chosen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.router.routing.fleet import Fleet, Member

WAIT = -1
"""Picked by late binding when every candidate is full: hold the request in the router."""

TIE = 0.001


@dataclass(frozen=True, slots=True)
class Ask:
    """What a strategy may know of the request. Sizes are in units of the fleet's mean request."""

    tokens: int = 0
    urgency: float = 0.5
    """0 for the lowest priority class, 1 for the highest."""
    sizes: Mapping[str, float] | None = None
    """By instance, where they differ: less where a prefix is already there."""


class Strategy(Protocol):
    """A rule. One object serves one fleet."""

    name: str

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        """One score a candidate."""
        ...

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        """Position of the chosen candidate, or WAIT, and the branch that decided."""
        ...


def lowest(scores: list[float], rng: random.Random) -> int:
    """Position of the lowest score, ties at random."""
    least = min(scores)
    position = scores.index(least)
    if scores.count(least) > 1:
        return rng.choice([index for index, score in enumerate(scores) if score == least])
    return position


def waiting(member: Member) -> float:
    """Requests at the instance: ours exactly, the others' as reported."""
    return member.own + member.others


class _Lowest:
    name = ""

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        return lowest(scores, rng), "lowest score"


class LeastAddedDelay(_Lowest):
    """Send the request where it adds the least delay to everybody: [h(n+1) − h(n)] / v with h(k) =
    k · max(1, k / C).
    """

    name = "least_added_delay"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        if ask.sizes is not None:
            return [sized_delay(member, ask.sizes.get(member.id, 1.0)) for member in candidates]
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
        return scores


def sized_delay(member: Member, size: float) -> float:
    """The same for a request of `size` mean requests: it waits for those before it, works, and
    those after wait for its size.
    """
    n, slots = member.own + member.others, member.concurrency
    if n < slots:
        return (size + TIE * n) / member.speed
    return ((n + (n + 1.0) * size) / slots + TIE * n) / member.speed


class RoundRobin:
    """Each in turn, from a start taken at random."""

    name = "round_robin"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        return [0.0] * len(candidates)

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        fleet.turn = rng.randrange(len(candidates)) if fleet.turn < 0 else fleet.turn + 1
        return fleet.turn % len(candidates), "in turn"


class LeastRequests(_Lowest):
    """Join the shortest queue, over all candidates."""

    name = "least_requests"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        return [waiting(member) / member.concurrency for member in candidates]


class PowerOfTwo:
    """The shorter queue of two taken at random (Mitzenmacher 2001)."""

    name = "power_of_two"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        return [waiting(member) / member.concurrency for member in candidates]

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        if len(candidates) == 1:
            return 0, "only candidate"
        first, second = rng.sample(range(len(candidates)), 2)
        return (first if scores[first] <= scores[second] else second), "better of two"


class PeakEwma(_Lowest):
    """Latency, quick to rise and slow to fall, times requests in flight (Finagle), over all
    candidates.
    """

    name = "peak_ewma"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        known = sorted(member.peak_s for member in candidates if member.peak_s > 0.0)
        unknown = known[len(known) // 2] if known else fleet.service_s
        return [(member.peak_s or unknown) * (waiting(member) + 1.0) for member in candidates]


class WeightedByUtilization:
    """Weighted round robin; a candidate's weight is its rate over its reported utilisation (gRFC
    A58), by stride.
    """

    name = "weighted_by_utilization"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        """The inverse of the weight: utilisation per request a second, the learned speed standing
        for the rate at full use.
        """
        known = sorted(_cost(member) for member in candidates if member.utilization > 0.0)
        unknown = known[len(known) // 2] if known else 1.0
        return [_cost(member) if member.utilization > 0.0 else unknown for member in candidates]

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        passes = [member.stride + score for member, score in zip(candidates, scores, strict=True)]
        position = lowest(passes, rng)
        floor = passes[position]
        # A newcomer starts at the present pass, or it would take every request until it has caught
        # up.
        for member in candidates:
            member.stride = max(member.stride, floor - 8.0 * scores[position])
        candidates[position].stride = floor
        return position, "weighted turn"


def _cost(member: Member) -> float:
    rate = max(member.speed * member.concurrency * min(1.0, member.utilization), 1e-9)
    return member.utilization / rate


class WeightedSum(_Lowest):
    """Performance 40 %, load 30 %, match of complexity 20 %, priority 10 %."""

    name = "weighted_sum"

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        fastest = max(member.speed for member in candidates)
        heavy = ask.tokens / (ask.tokens + fleet.mean_tokens) if ask.tokens else 0.5
        scores = []
        for member in candidates:
            performance = member.speed / fastest
            room = 1.0 / (1.0 + waiting(member) / member.concurrency)
            match = 1.0 - abs(heavy - performance)
            scores.append(
                -(0.4 * performance + 0.3 * room + 0.2 * match + 0.1 * ask.urgency * room)
            )
        return scores


class HotCold(_Lowest):
    """Prequal's rule with exact counts and modelled latency: above the quantile of queue lengths is
    hot; the quickest of the cold.
    """

    name = "hot_cold"
    quantile = 0.84

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        return [max(1.0, (waiting(m) + 1.0) / m.concurrency) / m.speed for m in candidates]

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        queues = [waiting(member) for member in candidates]
        limit = sorted(queues)[min(len(queues) - 1, int(self.quantile * len(queues)))]
        cold = [index for index, queue in enumerate(queues) if queue < limit]
        if not cold:
            return lowest(queues, rng), "all hot: shortest queue"
        return cold[lowest([scores[index] for index in cold], rng)], "cold: lowest latency"


class LateBinding:
    """Hold requests in the router and give each instance as many as it has slots, and so many more
    as cover the round trip.

    It needs to see every request and to reach the instances soon: `fits` says where. Elsewhere the
    router uses `LeastAddedDelay`.
    """

    name = "late_binding"
    slow_share = 0.3
    longest_round_trip = 0.05
    """In service times. Over longer ones instances stand idle or queue, and the added delay decides
    better.
    """

    def fits(self, fleet: Fleet) -> bool:
        """One router, and a round trip that has been measured and is short: what is not known
        counts as too long.
        """
        return (
            fleet.routers == 1 and fleet.round_trip_s <= self.longest_round_trip * fleet.service_s
        )

    def scores(self, candidates: Sequence[Member], fleet: Fleet, ask: Ask) -> list[float]:
        return [1.0 / member.speed for member in candidates]

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        median = sorted(member.speed for member in candidates)[len(candidates) // 2]
        # Rounded, not rounded up: one more among few costs more than the way does (benchmark
        # `routing`).
        wide = 1.0 + 2.0 * min(fleet.round_trip_s / fleet.service_s, self.longest_round_trip)
        free = [
            index
            for index, member in enumerate(candidates)
            # Never a far slower one while the others are only busy: waiting is the shorter way.
            if member.own < round(member.concurrency * wide)
            and member.speed >= self.slow_share * median
        ]
        if not free:
            return WAIT, "all busy: held"
        return free[lowest([scores[index] for index in free], rng)], "free and fastest"


class InsteadOfLateBinding(LeastAddedDelay):
    """The default where late binding is set and does not fit; the branch says so."""

    def pick(
        self, candidates: Sequence[Member], scores: list[float], fleet: Fleet, rng: random.Random
    ) -> tuple[int, str]:
        position, why = super().pick(candidates, scores, fleet, rng)
        return position, f"several routers, or the way is long or not known: {why}"


STRATEGIES: Mapping[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        LeastAddedDelay,
        RoundRobin,
        LeastRequests,
        PowerOfTwo,
        PeakEwma,
        WeightedByUtilization,
        WeightedSum,
        HotCold,
        LateBinding,
    )
}
