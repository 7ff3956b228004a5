"""Late binding: requests wait in the router, and each instance gets as many as it has slots.

It needs one router that sees every request, and a round trip to the instances that is short against
the service time; some requests more than slots cover the round trip. Elsewhere the least added
delay decides better, and is used.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategy import (
    WAIT,
    Answer,
    LeastAddedDelay,
    Pick,
    RequestFeatures,
    ScoredPick,
    lowest,
)
from penstock.service.purity import pure

ROUND_TRIPS = 128
MIN_ROUND_TRIPS = 8
"""Answers that must have come before their shortest round trip says something."""


@pure
class LateBinding:
    """See the head of this module."""

    name = "late_binding"
    waits = True
    slow_share = 0.3
    """Of the median speed: below it an instance gets nothing while the others are only busy."""
    max_round_trip = 0.05
    """In service times."""

    def __init__(self) -> None:
        self._otherwise = LeastAddedDelay()
        self._otherwise.why = Pick.NOT_BOUND_LATE
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self.round_trip_s = math.inf
        """What an answer took beyond queue and service, the shortest of the last hundred or so,
        since the rest is queues that were not reported; infinite until it is known.
        """

    def fits(self, fleet: Fleet) -> bool:
        """Whether it can be used: one router, and a round trip that is known to be short."""
        return fleet.routers == 1 and self.round_trip_s <= self.max_round_trip * fleet.service_s

    def choose(
        self,
        candidates: Sequence[Member],
        fleet: Fleet,
        request: RequestFeatures,
        rng: random.Random,
    ) -> ScoredPick:
        if not self.fits(fleet):
            return self._otherwise.choose(candidates, fleet, request, rng)
        scores = [1.0 / member.speed for member in candidates]
        free = self._free(candidates, fleet)
        if not free:
            return ScoredPick(scores, WAIT, Pick.ALL_BUSY)
        fastest = free[lowest([scores[index] for index in free], rng)]
        return ScoredPick(scores, fastest, Pick.FREE_AND_FASTEST)

    def _free(self, candidates: Sequence[Member], fleet: Fleet) -> list[int]:
        median = sorted(member.speed for member in candidates)[len(candidates) // 2]
        # Rounded, not rounded up: among few slots one request more costs more than the round trip
        # does (benchmark `routing`).
        covering = 1.0 + 2.0 * min(self.round_trip_s / fleet.service_s, self.max_round_trip)
        return [
            index
            for index, member in enumerate(candidates)
            if member.own < round(member.concurrency * covering)
            and member.speed >= self.slow_share * median
        ]

    def answered(self, member: Member, fleet: Fleet, answer: Answer) -> None:
        """Take in a round trip."""
        if answer.away_s is None:
            return
        trips = self._round_trips
        oldest = trips[0] if len(trips) == ROUND_TRIPS else math.inf
        trips.append(max(0.0, answer.away_s))
        if len(trips) < MIN_ROUND_TRIPS:
            return
        if oldest <= self.round_trip_s:
            self.round_trip_s = min(trips)
        else:
            self.round_trip_s = min(self.round_trip_s, trips[-1])
