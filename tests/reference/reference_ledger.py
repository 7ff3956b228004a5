"""A reference model of the limiter's ledger in Python.

It says the same as the ledger script in another language, without a store: tests run both on random
histories and compare every answer. It also shows properties of the rules themselves, such as that
strict rules are never exceeded.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import (
    MICROUSD,
    NOTHING,
    CalendarCounter,
    Counter,
    RateCounter,
    RollingCounter,
)
from penstock.limiter.script import (
    STALE_WINDOWS,
    UNBOUNDED,
    Alert,
    CounterUsage,
    Renewal,
    Reservation,
    Ruling,
    Settlement,
)
from reference_counters import MOST_URGENT, CounterState, ReferenceCounters
from reference_holds import (
    Hold,
    allowed_growth,
    is_too_tight,
    lease_grant,
    needed_amount,
    refused_by,
)

SETTLED_KEPT_MS = 60_000
EXPIRED_KEPT_MS = 3_600_000
"""How long a hold is remembered after its end, so that repeating a settlement books nothing."""


class ReferenceLedger:
    """The ledger of one organisation; `now_us` is Unix microseconds and never runs backwards."""

    def __init__(self) -> None:
        self.counters = ReferenceCounters()
        self.holds: dict[str, Hold] = {}
        self.is_drained = False
        self._due: list[tuple[int, str]] = []
        """When to look at holds again: to expire or to forget them."""

    def reserve(
        self, now_us: int, hold_id: str, path: Sequence[Counter], reservation: Reservation
    ) -> Ruling:
        """Hold what a call may cost on every counter of its path or on none, or grant a lease."""
        self._advance_to(now_us)
        if hold_id in self.holds:
            return Ruling(pb.VERDICT_ALLOWED, granted=self.holds[hold_id].granted)
        if self.is_drained:
            return Ruling(pb.VERDICT_DRAINED)
        states = self._check_path(path, reservation)
        refused = self._refusal(path, states)
        if refused is not None:
            return refused
        grant = list(reservation.max_cost)
        if reservation.is_lease:
            if any(is_too_tight(*pair) for pair in zip(path, states, strict=True)):
                return Ruling(pb.VERDICT_ALLOWED, is_tight=True)
            grant = lease_grant(path, states, reservation)
        hold = self._new_hold(path, states, grant, reservation)
        alerts = self._take(hold)
        if reservation.ttl_ms:  # otherwise nobody will settle: it is spent at once
            self.holds[hold_id] = hold
            heapq.heappush(self._due, (hold.expires_ms, hold_id))
        return Ruling(pb.VERDICT_ALLOWED, granted=hold.granted, alerts=alerts)

    def extend(self, now_us: int, hold_id: str, max_cost: list[int]) -> Ruling:
        """Enlarge an open hold to a new maximum, on every counter or on none."""
        self._advance_to(now_us)
        hold = self.holds.get(hold_id)
        if hold is None or not hold.is_open:
            return Ruling(pb.VERDICT_BUDGET_EXHAUSTED)
        missing = [max_cost[counter.dimension] - hold.held(counter) for counter in hold.path]
        for index, (counter, amount) in enumerate(zip(hold.path, missing, strict=True)):
            if amount > 0 and not counter.is_shadow:
                state = self.counters.check(counter, amount, MOST_URGENT, 0)
                if state.verdict not in (pb.VERDICT_ALLOWED, STALE_WINDOWS):
                    return self._with_alerts(refused_by(index, state), hold)
        for index, amount in enumerate(missing):
            if amount > 0:
                self._hold_more(hold, index, amount)
        hold.max_cost = [max(pair) for pair in zip(hold.max_cost, max_cost, strict=True)]
        hold.expected_cost = [max(pair) for pair in zip(hold.expected_cost, max_cost, strict=True)]
        hold.expires_ms = self.counters.now_ms + hold.ttl_ms
        return self._with_alerts(Ruling(pb.VERDICT_ALLOWED), hold)

    def settle(
        self, now_us: int, hold_id: str, spent: list[int], path: Sequence[Counter] = ()
    ) -> Settlement:
        """End a hold with what was spent, or book the difference if it has ended before.

        An unknown hold is booked on `path` if that is given. Without one it is only remembered as
        ended, if nothing was spent.
        """
        self._advance_to(now_us)
        hold = self.holds.get(hold_id)
        if hold is None:
            if path or not any(spent):
                self._settle_unknown(hold_id, spent, path)
            return Settlement(bool(path), NOTHING)
        for index, counter in enumerate(hold.path):
            held = hold.held(counter) if hold.is_open else 0
            difference = spent[counter.dimension] - hold.spent[counter.dimension]
            if not isinstance(counter, RateCounter):
                self._book_on_hold(hold, index, difference, -held)
            elif hold.is_open:
                self.counters.spend_rate(counter, difference - held)
        was_open = hold.is_open
        self._end(hold_id, hold, "done", SETTLED_KEPT_MS)
        hold.spent = list(spent)
        return Settlement(was_open, hold.granted)

    def renew(self, now_us: int, lease_id: str, renewal: Renewal) -> Ruling:
        """Book what a lease has spent since its grant, and fill it up again."""
        self._advance_to(now_us)
        lease = self.holds.get(lease_id)
        if lease is None or not lease.is_open or self.is_drained:
            return Ruling(pb.VERDICT_BUDGET_EXHAUSTED)
        fresh = [max(new - old, 0) for new, old in zip(renewal.spent, lease.spent, strict=True)]
        from_lease = [min(pair) for pair in zip(fresh, lease.max_cost, strict=True)]
        lease.max_cost[:] = [
            held if held >= UNBOUNDED else held - part
            for held, part in zip(lease.max_cost, from_lease, strict=True)
        ]
        growth = [want - held for want, held in zip(renewal.wanted, lease.max_cost, strict=True)]
        ruling = Ruling(pb.VERDICT_ALLOWED)
        for index, counter in enumerate(lease.path):
            d = counter.dimension
            if not isinstance(counter, RateCounter):
                self._book_on_hold(lease, index, fresh[d], -from_lease[d])
            is_current = self._is_current(lease, index)
            state = self.counters.check(counter, 0, renewal.priority, fresh[d])
            growth[d] = allowed_growth(counter, growth[d], state, renewal) if is_current else 0
            if state.available <= 0 and ruling.counter_index < 0 and not counter.is_shadow:
                ruling = refused_by(index, state)._replace(verdict=pb.VERDICT_ALLOWED)
        self._grow(lease, growth)
        lease.expected_cost = lease.min_cost = lease.max_cost
        lease.spent = [max(pair) for pair in zip(lease.spent, renewal.spent, strict=True)]
        lease.expires_ms = self.counters.now_ms + lease.ttl_ms
        return self._with_alerts(ruling._replace(granted=lease.granted), lease)

    def usage(self, now_us: int, path: Sequence[Counter]) -> list[CounterUsage]:
        """The state of each counter."""
        self._advance_to(now_us)
        return self.counters.usage(path)

    def _check_path(self, path: Sequence[Counter], reservation: Reservation) -> list[CounterState]:
        """The states of the counters, as far as the first one whose windows are stale."""
        states: list[CounterState] = []
        for counter in path:
            demand = 0 if reservation.is_lease else reservation.expected_cost[counter.dimension]
            needed = needed_amount(counter, reservation)
            state = self.counters.check(counter, needed, reservation.priority, demand)
            is_stale = state.verdict == STALE_WINDOWS
            if counter.dimension == MICROUSD and reservation.is_unpriced and not is_stale:
                state = state._replace(verdict=pb.VERDICT_UNPRICED, retry_ms=0)
            states.append(state)
            if is_stale:
                break
        return states

    def _refusal(self, path: Sequence[Counter], states: Sequence[CounterState]) -> Ruling | None:
        """The refusal of a path; None if every counter allows."""
        last = len(states) - 1
        if states and states[last].verdict == STALE_WINDOWS:
            return Ruling(STALE_WINDOWS, last, available=self.counters.now_ms)
        for index, (counter, state) in enumerate(zip(path, states, strict=True)):
            if state.verdict != pb.VERDICT_ALLOWED and not counter.is_shadow:
                return refused_by(index, state)
        return None

    def _new_hold(
        self,
        path: Sequence[Counter],
        states: Sequence[CounterState],
        grant: list[int],
        reservation: Reservation,
    ) -> Hold:
        """A hold of a grant. A lease holds all of it, and all of it stays spent if it expires."""
        is_lease = reservation.is_lease
        return Hold(
            tuple(path),
            [state.window for state in states],
            grant,
            grant if is_lease else list(reservation.expected_cost),
            grant if is_lease else list(reservation.min_cost),
            reservation.ttl_ms,
            self.counters.now_ms + reservation.ttl_ms,
            is_lease,
        )

    def _take(self, hold: Hold) -> tuple[Alert, ...]:
        """Take what a new hold holds from its counters; returns the alerts."""
        alerts = []
        for index, counter in enumerate(hold.path):
            held = hold.held(counter)
            if held < UNBOUNDED:
                if isinstance(counter, RateCounter):
                    self.counters.spend_rate(counter, held)
                else:
                    self.counters.book(counter, hold.windows[index], 0, held)
            share = self.counters.newly_reached_alert(counter)
            if share:
                alerts.append(Alert(index, share))
        return tuple(alerts)

    def _hold_more(self, hold: Hold, index: int, amount: int) -> None:
        """Hold more of a counter, or less if `amount` is negative."""
        counter, window = hold.path[index], hold.windows[index]
        if isinstance(counter, RateCounter):
            self.counters.spend_rate(counter, amount)
        elif self.counters.is_in_window(counter, window):
            self.counters.book(counter, window, 0, amount)

    def _book_on_hold(self, hold: Hold, index: int, committed: int, held: int) -> None:
        """Book on a budget of a hold, if it is still in the window in which it was held."""
        counter, window = hold.path[index], hold.windows[index]
        if self.counters.is_in_window(counter, window):
            if isinstance(counter, RollingCounter):
                self.counters.advance_window(counter)
            self.counters.book(counter, window, committed, held)

    def _with_alerts(self, ruling: Ruling, hold: Hold) -> Ruling:
        """Add the alerts of a hold that has grown, and its rules if there is one to name."""
        alerts = []
        for index, counter in enumerate(hold.path):
            is_budget = not isinstance(counter, RateCounter)
            if is_budget and self.counters.is_in_window(counter, hold.windows[index]):
                share = self.counters.newly_reached_alert(counter)
                if share:
                    alerts.append(Alert(index, share))
        rules = tuple(counter.rule for counter in hold.path)
        is_named = bool(alerts) or ruling.counter_index >= 0
        return ruling._replace(alerts=tuple(alerts), rules=rules if is_named else ())

    def _settle_unknown(self, hold_id: str, spent: list[int], path: Sequence[Counter]) -> None:
        windows = []
        for counter in path:
            amount = spent[counter.dimension]
            window = counter.window_start_ms if isinstance(counter, CalendarCounter) else 0
            windows.append(window)
            if isinstance(counter, RateCounter):
                if amount > 0:
                    self.counters.spend_rate(counter, amount)
            elif self.counters.advance_window(counter) == window:
                self.counters.book(counter, window, amount, 0)
        nothing = [0, 0, 0]
        hold = Hold(
            tuple(path),
            windows,
            nothing,
            nothing,
            nothing,
            0,
            self.counters.now_ms,
            spent=list(spent),
        )
        self.holds[hold_id] = hold
        self._end(hold_id, hold, "done", SETTLED_KEPT_MS)

    def _is_current(self, lease: Hold, index: int) -> bool:
        """Whether a counter of a lease is still in the calendar window that the lease holds."""
        counter = lease.path[index]
        if not isinstance(counter, CalendarCounter):
            return True
        return self.counters.advance_window(counter) == lease.windows[index]

    def _grow(self, lease: Hold, growth: list[int]) -> None:
        """Take a lease's growth, which may be negative, from its counters."""
        for index, counter in enumerate(lease.path):
            d = counter.dimension
            amount = max(growth[d], -lease.max_cost[d])
            if amount and lease.max_cost[d] < UNBOUNDED:
                self._hold_more(lease, index, amount)
        for d in {counter.dimension for counter in lease.path}:
            if lease.max_cost[d] < UNBOUNDED:
                lease.max_cost[d] = max(lease.max_cost[d] + growth[d], 0)

    def _advance_to(self, now_us: int) -> None:
        """Move to a time: holds expire or are forgotten."""
        self.counters.now_us = now_us
        now_ms = self.counters.now_ms
        while self._due and self._due[0][0] <= now_ms:
            _, hold_id = heapq.heappop(self._due)
            hold = self.holds.get(hold_id)
            if hold is None:
                continue
            if hold.is_open and hold.expires_ms > now_ms:
                heapq.heappush(self._due, (hold.expires_ms, hold_id))
            elif hold.is_open:
                self._expire(hold_id, hold)
            elif hold.forget_ms <= now_ms:
                del self.holds[hold_id]
            else:
                heapq.heappush(self._due, (hold.forget_ms, hold_id))

    def _expire(self, hold_id: str, hold: Hold) -> None:
        """Book the minimum of a hold that nobody has settled."""
        for index, counter in enumerate(hold.path):
            if not isinstance(counter, RateCounter):
                min_cost = hold.min_cost[counter.dimension]
                self._book_on_hold(hold, index, min_cost, -hold.held(counter))
        hold.spent = [sum(pair) for pair in zip(hold.spent, hold.min_cost, strict=True)]
        self._end(hold_id, hold, "expired", EXPIRED_KEPT_MS)

    def _end(self, hold_id: str, hold: Hold, state: str, kept_ms: int) -> None:
        hold.state = state
        hold.forget_ms = self.counters.now_ms + kept_ms
        heapq.heappush(self._due, (hold.forget_ms, hold_id))
