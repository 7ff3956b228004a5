"""The default strategy: send the request where it adds the least delay to everybody.

With h(k) = k · max(1, k / C) the requests that k requests delay each other by at C slots, an
instance of speed v with n in flight is scored [h(n + 1) − h(n)] / v (see the decision on least
added delay).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from penstock.router.routing.fleet import Fleet, Member
from penstock.router.routing.strategy import Forgetful, Pick, RequestFeatures, ScoredPick, lowest
from penstock.service.purity import pure

TIE = 0.001
"""Weight of what is in flight among instances that would add the same delay."""


@pure
class LeastAddedDelay(Forgetful):
    """See the head of this module."""

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
    """The same for a request of `size` mean requests: it waits for those before it, works, and
    those after it wait for its size.
    """
    n, slots = member.own + member.others, member.concurrency
    if n < slots:
        return (size + TIE * n) / member.speed
    return ((n + (n + 1.0) * size) / slots + TIE * n) / member.speed
