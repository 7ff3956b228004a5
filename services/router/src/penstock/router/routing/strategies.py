"""Nine ways to choose among candidates, behind one interface: score them, then pick by the scores.

A strategy is an object of one fleet and owns whatever it remembers; it reads no clock and has no
chance of its own. A score is always "lower is better". `LeastAddedDelay` is the default; the others
are there to be compared with it, and to be chosen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.late_binding import LateBinding
from penstock.router.routing.strategy import (
    Answer,
    Forgetful,
    LeastAddedDelay,
    Pick,
    RequestFeatures,
    ScoredPick,
    Strategy,
    lowest,
)
from penstock.service.purity import pure


@pure
class RoundRobin(Forgetful):
    """Each in turn, from a start taken at random."""

    name = "round_robin"

    def __init__(self) -> None:
        self._turn = -1

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        self._turn = rng.randrange(len(candidates)) if self._turn < 0 else self._turn + 1
        return ScoredPick([0.0] * len(candidates), self._turn % len(candidates), Pick.IN_TURN)


@pure
class LeastRequests(Forgetful):
    """Join the shortest queue, over all candidates."""

    name = "least_requests"

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        scores = [member.in_flight / member.concurrency for member in candidates]
        return ScoredPick(scores, lowest(scores, rng), Pick.LOWEST_SCORE)


@pure
class PowerOfTwo(Forgetful):
    """The shorter queue of two taken at random (Mitzenmacher 2001)."""

    name = "power_of_two"

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        scores = [member.in_flight / member.concurrency for member in candidates]
        if len(candidates) == 1:
            return ScoredPick(scores, 0, Pick.ONLY_CANDIDATE)
        first, second = rng.sample(range(len(candidates)), 2)
        better = first if scores[first] <= scores[second] else second
        return ScoredPick(scores, better, Pick.BETTER_OF_TWO)


@pure
class PeakEwma:
    """Latency, quick to rise and slow to fall, times requests in flight (Finagle), over all."""

    name = "peak_ewma"
    waits = False
    decay_services = 30.0
    """Service times after which an old peak counts 1/e."""

    def __init__(self) -> None:
        self._peaks: dict[str, tuple[float, float]] = {}
        """Latency and the time that it is of, by instance."""

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        known = sorted(self._peaks[one.id][0] for one in candidates if one.id in self._peaks)
        unknown = known[len(known) // 2] if known else fleet.service_s
        scores = [
            self._peaks.get(member.id, (unknown, 0.0))[0] * (member.in_flight + 1.0)
            for member in candidates
        ]
        return ScoredPick(scores, lowest(scores, rng), Pick.LOWEST_SCORE)

    def answered(self, member: Member, fleet: Fleet, answer: Answer) -> None:
        """Take in a latency: higher at once, lower by degrees."""
        peak_s, at = self._peaks.get(member.id, (0.0, answer.now))
        weight = math.exp((at - answer.now) / (self.decay_services * fleet.service_s))
        if answer.took_s <= peak_s:
            peak_s = weight * peak_s + (1.0 - weight) * answer.took_s
        else:
            peak_s = answer.took_s
        self._peaks[member.id] = (peak_s, answer.now)


@pure
class WeightedByUtilization(Forgetful):
    """Weighted round robin; a candidate's weight is its rate over its reported utilisation (gRFC
    A58), by stride.

    The learned speed stands for the rate at full use.
    """

    name = "weighted_by_utilization"
    max_lag = 8.0
    """Turns by which a newcomer may be behind, or it would take every request until it has caught
    up.
    """

    def __init__(self) -> None:
        self._passes: dict[str, float] = {}

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        known = sorted(_cost(member) for member in candidates if member.utilization > 0.0)
        unknown = known[len(known) // 2] if known else 1.0
        scores = [_cost(one) if one.utilization > 0.0 else unknown for one in candidates]
        passes = [
            self._passes.get(member.id, 0.0) + score
            for member, score in zip(candidates, scores, strict=True)
        ]
        position = lowest(passes, rng)
        present, behind = passes[position], passes[position] - self.max_lag * scores[position]
        self._passes = {one.id: max(self._passes.get(one.id, 0.0), behind) for one in candidates}
        self._passes[candidates[position].id] = present
        return ScoredPick(scores, position, Pick.WEIGHTED_TURN)


def _cost(member: Member) -> float:
    """The inverse of an instance's weight: utilisation per request a second."""
    rate = member.speed * member.concurrency * min(1.0, member.utilization)
    return member.utilization / max(rate, 1e-9)


@pure
class WeightedSum(Forgetful):
    """Performance 40 %, load 30 %, match of complexity 20 %, priority 10 %."""

    name = "weighted_sum"

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        fastest = max(member.speed for member in candidates)
        heavy = 1.0 if request.tokens else 0.5
        scores = []
        for member in candidates:
            performance = member.speed / fastest
            room = 1.0 / (1.0 + member.in_flight / member.concurrency)
            match = 1.0 - abs(heavy - performance)
            scores.append(
                -(0.4 * performance + 0.3 * room + 0.2 * match + 0.1 * request.urgency * room)
            )
        return ScoredPick(scores, lowest(scores, rng), Pick.LOWEST_SCORE)


@pure
class HotCold(Forgetful):
    """Prequal's rule (Wydrowski et al. 2024) with exact counts and modelled latency.

    Candidates above the quantile of queue lengths are hot; the quickest of the cold is picked.
    """

    name = "hot_cold"
    quantile = 0.84

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        scores = [
            max(1.0, (one.in_flight + 1.0) / one.concurrency) / one.speed for one in candidates
        ]
        queues = [member.in_flight for member in candidates]
        limit = sorted(queues)[min(len(queues) - 1, int(self.quantile * len(queues)))]
        cold = [index for index, queue in enumerate(queues) if queue < limit]
        if not cold:
            return ScoredPick(scores, lowest(queues, rng), Pick.ALL_HOT)
        best = cold[lowest([scores[index] for index in cold], rng)]
        return ScoredPick(scores, best, Pick.COLDEST)


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
"""Strategies by the name that the setting has; one object is made for each fleet."""
