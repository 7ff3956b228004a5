"""A lease as a value: a share of the limits of one spend path, and what has become of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.rpc.call import Principal

UNBOUNDED = 2**53 - 1
"""Share of a path on which no rule counts anything."""

Amounts = tuple[int, int, int]
"""Requests, tokens, micro-dollars."""
MARGIN = 0.2
"""Part of a lease's time in which it is no longer used."""
RENEW_AT = 0.5
"""A lease is renewed when so much of its share or of its time has gone."""
FIRST_CALLS = 32
"""A new lease asks for so many calls like the one at hand."""
MIN_USE_S = 0.05
"""Shortest time that a rate of use is taken over."""
NOTHING: Amounts = (0, 0, 0)
PARTS = (0, 1, 2)


class SpendPath(NamedTuple):
    """Who spends, on which model, how urgently: what limits are looked up by."""

    principal: Principal
    model: str
    priority: int


@dataclass(slots=True)
class Lease:
    """A share that is here. Lists hold requests, tokens and micro-dollars."""

    id: str
    path: SpendPath
    good_until_s: float
    renew_at_s: float
    left: list[int]
    low: list[int]
    """Below this, the lease is renewed."""
    in_flight: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted and not yet settled, at what it may cost at most."""
    spent: list[int] = field(default_factory=lambda: [0, 0, 0])
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Admitted since the last renewal: what the next share is sized by."""
    since_s: float = 0.0
    ttl_s: float = 0.0
    share: tuple[int, ...] = NOTHING
    """What it had when it was granted or renewed last, what was in flight included."""
    overdraft: Amounts = NOTHING
    """What may be spent beyond the share: nothing while the limiter answers."""
    is_scarce: bool = False
    """Whether less was granted than was asked for."""
    is_unanswered: bool = False
    """Whether the limiter or its store has not answered the last renewal."""
    renewing: asyncio.Task[None] | None = None
    over: bool = False

    @classmethod
    def granted(
        cls, lease_id: str, path: SpendPath, share: list[int], now: float, ttl_s: float
    ) -> Lease:
        """A lease of this share for `ttl_s` from now on (monotonic seconds)."""
        good_until_s, renew_at_s = now + ttl_s * (1 - MARGIN), now + ttl_s * RENEW_AT
        low = _low(share)
        return cls(
            lease_id,
            path,
            good_until_s,
            renew_at_s,
            share,
            low,
            since_s=now,
            ttl_s=ttl_s,
            share=tuple(share),
        )

    def wanted(self, now: float, needed: Amounts) -> list[int]:
        """What a renewal asks for: what is in flight, and as much as was used in the time that the
        lease lasts, or needed for so many calls as a new lease asks for.
        """
        scale = 0.0 if self.over else self.ttl_s / max(now - self.since_s, MIN_USE_S)
        return [
            self.in_flight[part] + max(round(self.used[part] * scale), needed[part] * FIRST_CALLS)
            for part in PARTS
        ]

    def refill(self, granted: Amounts, reported: Sequence[int], now: float) -> None:
        """Take what a renewal has granted, which was told `reported` as spent."""
        for part in PARTS:
            settled = self.spent[part] - reported[part]
            self.left[part] = granted[part]
            if granted[part] < UNBOUNDED:
                self.left[part] -= settled + self.in_flight[part]
        self.share = tuple(self.left[part] + self.in_flight[part] for part in PARTS)
        self.overdraft, self.is_unanswered = NOTHING, False
        self.low, self.used, self.since_s = _low(self.left), [0, 0, 0], now
        self.good_until_s = now + self.ttl_s * (1 - MARGIN)
        self.renew_at_s = now + self.ttl_s * RENEW_AT

    def settle(self, amounts: Amounts, spent: Amounts) -> None:
        """A call that took `amounts` has spent so much of it."""
        for part in PARTS:
            self.in_flight[part] -= amounts[part]
            self.spent[part] += spent[part]
            self.left[part] += amounts[part] - spent[part]

    @property
    def unlimited(self) -> bool:
        """Whether no rule counts anything on the path."""
        return min(self.left) >= UNBOUNDED // 2

    def covers(self, amounts: Amounts) -> bool:
        """Whether so much is left."""
        left, over = self.left, self.overdraft
        return (
            left[0] + over[0] >= amounts[0]
            and left[1] + over[1] >= amounts[1]
            and left[2] + over[2] >= amounts[2]
        )

    def take(self, amounts: Amounts) -> None:
        """Take what a call may cost."""
        for part in PARTS:
            self.left[part] -= amounts[part]
            self.in_flight[part] += amounts[part]
            self.used[part] += amounts[part]

    @property
    def is_low(self) -> bool:
        """Whether so little is left that it is to be renewed."""
        left, low = self.left, self.low
        return left[0] < low[0] or left[1] < low[1] or left[2] < low[2]

    @property
    def at_most(self) -> Amounts:
        """What it may have spent: what is settled, and what is in flight."""
        spent, in_flight = self.spent, self.in_flight
        return spent[0] + in_flight[0], spent[1] + in_flight[1], spent[2] + in_flight[2]

    @property
    def beyond(self) -> Amounts:
        """How much of that is beyond the share."""
        left = self.left
        return max(0, -left[0]), max(0, -left[1]), max(0, -left[2])

    @property
    def is_overdrawn(self) -> bool:
        """Whether more than the share may have been spent."""
        return min(self.left) < 0


def _low(share: Sequence[int]) -> list[int]:
    return [0 if part >= UNBOUNDED // 2 else int(part * RENEW_AT) for part in share]
