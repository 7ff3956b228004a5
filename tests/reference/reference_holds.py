"""Holds of the reference ledger, and what a reservation or a renewal may take from a counter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.limiter.counters import Counter, ThreeAmounts
from penstock.limiter.script import STALE_WINDOWS, UNBOUNDED, Renewal, Reservation, Ruling
from reference_counters import CounterState, is_tight


@dataclass
class Hold:
    """What a call or a lease may still spend."""

    path: tuple[Counter, ...]
    windows: list[int]
    max_cost: list[int]
    expected_cost: list[int]
    min_cost: list[int]
    ttl_ms: int
    expires_ms: int
    is_lease: bool = False
    spent: list[int] = field(default_factory=lambda: [0, 0, 0])
    state: str = "open"
    forget_ms: int = UNBOUNDED

    @property
    def is_open(self) -> bool:
        return self.state == "open"

    @property
    def granted(self) -> ThreeAmounts:
        return self.max_cost[0], self.max_cost[1], self.max_cost[2]

    def held(self, counter: Counter) -> int:
        """What it holds of a counter."""
        if counter.own_amount is not None:
            return counter.own_amount
        cost = self.expected_cost if counter.is_expected else self.max_cost
        return cost[counter.dimension]


def needed_amount(counter: Counter, reservation: Reservation) -> int:
    """What a reservation needs at least of a counter."""
    if counter.own_amount is not None:
        return counter.own_amount
    if reservation.is_lease:
        return reservation.min_cost[counter.dimension]
    cost = reservation.expected_cost if counter.is_expected else reservation.max_cost
    return cost[counter.dimension]


def lease_grant(
    path: Sequence[Counter], states: Sequence[CounterState], reservation: Reservation
) -> list[int]:
    """A lease's share of the tightest counter; unbounded where no rule counts."""
    grant = [UNBOUNDED] * 3
    for counter, state in zip(path, states, strict=True):
        d = counter.dimension
        grant[d] = min(grant[d], reservation.max_cost[d])
        if not counter.is_shadow:
            share = math.floor(state.available * reservation.share)
            grant[d] = min(grant[d], max(share, reservation.min_cost[d]))
    return grant


def allowed_growth(counter: Counter, wanted: int, state: CounterState, renewal: Renewal) -> int:
    """By how much a counter lets a lease grow that wants to grow by `wanted`."""
    if state.verdict == STALE_WINDOWS:
        return 0
    if counter.is_shadow:
        return wanted
    growth = min(wanted, max(math.floor(state.available * renewal.share), 0))
    return min(growth, 0) if is_tight(counter, state) else growth


def is_too_tight(counter: Counter, state: CounterState) -> bool:
    """Whether a rule that may refuse keeps a budget from being leased."""
    return not counter.is_shadow and is_tight(counter, state)


def refused_by(index: int, state: CounterState) -> Ruling:
    """The refusal by a counter of a path."""
    return Ruling(state.verdict, index, state.retry_ms, state.available)
