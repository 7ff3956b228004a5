"""Holds: how they are made and ended, with the store or without it, and which ones are open.

While the store is lost, a call passes if no rule of its path refuses it then (`store_loss`). This
process remembers its holds for that: the settlement of a call that passed without the store books
what it spent. It also remembers them to learn what outputs cost, and to bound by how much holds of
expected cost may overshoot.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import NOTHING, Amounts, Counter, PathCounters, SpendPath
from penstock.limiter.output_estimates import CallGroup
from penstock.limiter.script import STALE_WINDOWS, UNBOUNDED, Reservation, Ruling, Settlement
from penstock.limiter.store.errors import StoreLost
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.service.clock import Clock

MAX_OPEN_HOLDS = 100_000
"""Beyond this the oldest is forgotten."""
UNBOOKED_KEPT_S = 3_600.0
"""How long a hold is remembered that passed while the store was lost, and a lease."""
STORE_WAIT_SHARE = 0.8
"""Part of a caller's time that may be spent waiting for a slow or lost store."""
MAX_STORE_WAIT_S = 2.0
"""The longest wait for a slow or lost store."""
STORE_LOST_RETRY_MS = 1_000
"""When callers who met a lost store are asked to try again."""
UNLIMITED = (UNBOUNDED, UNBOUNDED, UNBOUNDED)


@dataclass
class OpenHold:
    """What this process remembers of a hold.

    Args:
        group: the calls by whose outputs its cost was expected; None for a lease.
        path: the counters that it holds.
        unbooked: the same if the store, which was lost, does not know of them; else empty.
        forget_s: when the hold has expired in the store, by the monotonic clock.
    """

    max_cost: Amounts
    expected_cost: Amounts
    min_cost: Amounts
    group: CallGroup | None
    path: tuple[Counter, ...]
    unbooked: tuple[Counter, ...]
    forget_s: float = math.inf

    @property
    def is_counted(self) -> bool:
        """Whether any rule counts it; the store knows of no other."""
        return bool(self.path)

    def grow(self, max_cost: Amounts) -> None:
        """Enlarge the hold to a new maximum."""
        self.max_cost = _larger(self.max_cost, max_cost)
        self.expected_cost = _larger(self.expected_cost, max_cost)

    def overshoot_bound(self, dimension: int) -> int:
        """The most that the call may cost beyond what is held for it: 0 unless a rule of its path
        holds what is expected.
        """
        if not any(
            counter.is_expected and counter.dimension == dimension and not counter.is_shadow
            for counter in self.path
        ):
            return 0
        return max(0, self.max_cost[dimension] - self.expected_cost[dimension])


class OpenHolds:
    """Open holds by id, the oldest first; their number is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holds: OrderedDict[str, OpenHold] = OrderedDict()

    def __len__(self) -> int:
        self._forget_expired()
        return len(self._holds)

    def get(self, hold_id: str) -> OpenHold | None:
        """The hold of an id, if it is remembered."""
        return self._holds.get(hold_id)

    def add(self, hold_id: str, hold: OpenHold, ttl_s: float) -> None:
        """Remember a hold for `ttl_s` from now on."""
        hold.forget_s = self._clock.monotonic() + ttl_s
        self._holds[hold_id] = hold
        if len(self) > MAX_OPEN_HOLDS:
            self._holds.popitem(last=False)

    def remove(self, hold_id: str) -> None:
        """Forget a hold that has been settled."""
        self._holds.pop(hold_id, None)

    def overshoot_bound(self, dimension: int) -> int:
        """The most by which open holds may overshoot rules that hold what is expected."""
        self._forget_expired()
        return sum(hold.overshoot_bound(dimension) for hold in self._holds.values())

    def _forget_expired(self) -> None:
        """Forget the oldest holds as long as they have expired."""
        now_s = self._clock.monotonic()
        while self._holds and next(iter(self._holds.values())).forget_s < now_s:
            self._holds.popitem(last=False)


class Reserved(NamedTuple):
    """What a reservation came to."""

    ruling: Ruling
    path: tuple[Counter, ...]
    """The counters that decided."""
    is_booked: bool = True
    """False: it passed while the store was lost, so its settlement books it."""

    @property
    def is_allowed(self) -> bool:
        """True if the call may pass, or the lease may be granted."""
        return self.ruling.verdict == pb.VERDICT_ALLOWED


class Holds:
    """Makes and ends holds, and remembers those that are open."""

    def __init__(self, store: LedgerStore, counters: PathCounters, clock: Clock) -> None:
        self._store = store
        self._counters = counters
        self._clock = clock
        self.open = OpenHolds(clock)

    async def reserve(
        self, path: SpendPath, hold_id: str, reservation: Reservation, left_s: float
    ) -> Reserved:
        """Ask the store whether a path may spend, or while it is lost the rules.

        Args:
            left_s: seconds until the caller's deadline; a part of them may be spent waiting for a
                slow or lost store.
        """
        counters = self._counters.of(path)
        if not counters:
            return Reserved(Ruling(pb.VERDICT_ALLOWED, granted=UNLIMITED), counters)
        organisation, wait_s = path.organisation, _store_wait_s(counters, left_s)
        try:
            ruling = await self._store.reserve(organisation, hold_id, counters, reservation, wait_s)
            if ruling.verdict == STALE_WINDOWS:
                # A window has ended by the store's clock, which says which one it is.
                counters = self._counters.at(path, ruling.available / 1000)
                ruling = await self._store.reserve(
                    organisation, hold_id, counters, reservation, wait_s
                )
        except StoreLost:
            counters = self._counters.of(path)
            return self._reserve_without_store(organisation, hold_id, counters, reservation.fence)
        return Reserved(ruling, counters)

    def remember(
        self, hold_id: str, reservation: Reservation, reserved: Reserved, group: CallGroup | None
    ) -> None:
        """Remember a hold that was allowed: a call's until it expires, a lease's for an hour."""
        hold = OpenHold(
            reservation.max_cost,
            reservation.expected_cost,
            reservation.min_cost,
            group,
            reserved.path,
            () if reserved.is_booked else reserved.path,
        )
        ttl_s = reservation.ttl_ms / 1e3
        if reservation.is_lease:
            ttl_s = UNBOOKED_KEPT_S
        elif hold.unbooked:
            ttl_s = max(ttl_s, UNBOOKED_KEPT_S)
        self.open.add(hold_id, hold, ttl_s)

    async def extend(
        self, organisation: str, hold_id: str, max_cost: Amounts, ttl_s: float, fence: int = 0
    ) -> Ruling:
        """Enlarge a call's hold to a new maximum, for `ttl_s` from now on.

        A hold that the store does not know of may grow, and so may any hold while the store is
        lost: the call runs already, and its commit books what it spent.
        """
        hold = self.open.get(hold_id)
        ruling = Ruling(pb.VERDICT_ALLOWED)
        if hold is not None and (hold.unbooked or not hold.is_counted):
            return ruling
        with contextlib.suppress(StoreLost):
            ruling = await self._store.extend(organisation, hold_id, max_cost, fence)
        if hold is not None and ruling.verdict == pb.VERDICT_ALLOWED:
            hold.grow(max_cost)
            hold.forget_s = self._clock.monotonic() + ttl_s
        return ruling

    async def settle(
        self, path: SpendPath, hold_id: str, spent: Amounts, fence: int = 0
    ) -> Settlement:
        """End a hold with what was spent.

        Args:
            path: where to book if the store and this process have both forgotten the hold; without
                a model nothing is booked then.

        Raises:
            StoreLost: the settlement is owed, and is done when the store answers again. Repeating
                it books nothing twice.
        """
        hold = self.open.get(hold_id)
        if hold is not None and not hold.is_counted:
            self.open.remove(hold_id)
            requests, tokens, microusd = hold.max_cost
            return Settlement(was_open=True, held=(requests, tokens, microusd))
        if hold is not None:
            counters, unbooked = hold.path, hold.unbooked
        else:
            counters, unbooked = self._counters.of(path) if path.model else (), ()
        settlement = await self._store.settle(
            path.organisation, hold_id, spent, counters, unbooked, fence
        )
        self.open.remove(hold_id)
        return settlement

    def recovery_left_ms(self, lease_ms: int) -> int:
        """Milliseconds until leases may be granted again after a restart of the store; 0: they may.

        The store may have lost the leases that it granted last; their holders report them within
        one lease's time.
        """
        since_ms = 1e3 * (self._clock.monotonic() - self._store.restarted_s)
        return math.ceil(lease_ms - min(since_ms, lease_ms))

    def _reserve_without_store(
        self, organisation: str, hold_id: str, counters: tuple[Counter, ...], fence: int
    ) -> Reserved:
        """Let the rules decide.

        The store may have run the reservation without answering, so what is refused is given back
        when it answers again.
        """
        refusing = _refusing_without_store(counters)
        if not refusing:
            allowed = Ruling(pb.VERDICT_ALLOWED, granted=UNLIMITED)
            return Reserved(allowed, counters, is_booked=False)
        self._store.owe(organisation, hold_id, NOTHING, counters, counters, fence)
        refused = Ruling(pb.VERDICT_STORE_UNAVAILABLE, refusing[0], STORE_LOST_RETRY_MS)
        return Reserved(refused, counters)


def _store_wait_s(counters: Sequence[Counter], left_s: float) -> float:
    """How long a call may wait for a slow or lost store: not at all where every rule would allow it
    without one.
    """
    if not _refusing_without_store(counters):
        return 0.0
    return min(MAX_STORE_WAIT_S, STORE_WAIT_SHARE * max(0.0, left_s))


def _refusing_without_store(counters: Sequence[Counter]) -> list[int]:
    """Indexes of the counters whose rule refuses calls while the store is lost."""
    return [
        index
        for index, counter in enumerate(counters)
        if counter.store_loss != "open" and not counter.is_shadow
    ]


def _larger(left: Amounts, right: Amounts) -> Amounts:
    return [max(pair) for pair in zip(left, right, strict=True)]
