"""A reference model of the ledger's counters in Python; `reference_ledger.py` says what for.

Rates are GCRA (ITU-T I.371): one theoretical arrival time each. Budgets are committed + held +
available = limit. What more urgent priorities are forecast to need is protected: nested protection
levels (Littlewood 1972), from the demand of the last slices of a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import (
    BudgetCounter,
    CalendarCounter,
    Counter,
    RateCounter,
    RollingCounter,
)
from penstock.limiter.script import STALE_WINDOWS, CounterUsage
from penstock.limiter.store.replay import Booking

ROLLING_STEPS = 60
"""A rolling window moves in this many steps."""
SLICES = 48
"""Demand is observed over this many slices of a window."""
SLICES_REMEMBERED = 8
"""The sum of earlier slices fades by one part in this many each slice."""
SAFETY_FACTOR = 1.5
"""What is protected is this many times the forecast."""
MOST_URGENT = 4
TIGHT_PART = 10
"""A strict budget is not leased when less than one part in this many is left."""


@dataclass
class BudgetState:
    """A budget's counter in its present window."""

    window: int
    committed: int = 0
    held: int = 0
    alert_level: int = 0
    spent_by_step: dict[int, int] = field(default_factory=dict)
    oldest_step: int = 0
    slice_index: int = 0
    observed_ms: int = 0
    """Time that `earlier_demand` stands for."""
    present_demand: dict[int, int] = field(default_factory=dict)
    earlier_demand: dict[int, int] = field(default_factory=dict)


class CounterState(NamedTuple):
    """What a counter says about an amount.

    `available` is what the caller's priority may have, `unspent` what the most urgent may.
    """

    verdict: int
    retry_ms: int
    available: int
    limit: int
    window: int
    unspent: int


class ReferenceCounters:
    """The counters of one organisation; `now_us` is Unix microseconds and never runs backwards."""

    def __init__(self) -> None:
        self.now_us = 0
        self.arrival_us: dict[str, int] = {}
        """Theoretical arrival times of rates."""
        self.budgets: dict[str, BudgetState] = {}
        self.limits: dict[str, int] = {}
        """Limits that operators have set."""
        self.bookings: list[Booking] = []
        """The ledger: its sum is the state of the budgets."""

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def check(self, counter: Counter, amount: int, priority: int, demand: int) -> CounterState:
        """Whether a counter allows an amount; `demand` is what the call asks for."""
        limit = self._limit(counter)
        if isinstance(counter, RateCounter):
            return self._check_rate(counter, amount, limit)
        assert isinstance(counter, BudgetCounter)
        return self._check_budget(counter, amount, limit, (priority, demand))

    def spend_rate(self, counter: RateCounter, amount: int) -> None:
        """Spend units of a rate, or give them back if `amount` is negative."""
        interval_us = counter.period_us / self._limit(counter)
        before_us = max(self.arrival_us.get(counter.key, 0), self.now_us)
        arrival_us = before_us + math.ceil(amount * interval_us)
        self.arrival_us[counter.key] = max(arrival_us, self.now_us)

    def book(self, counter: Counter, window: int, committed: int, held: int) -> None:
        """Add to a budget's committed and held amounts."""
        budget = self.budgets[counter.key]
        if isinstance(counter, RollingCounter) and committed < 0:
            committed = -_take_from_oldest_steps(budget, -committed)
        if not committed and not held:
            return
        budget.committed += committed
        budget.held += held
        if isinstance(counter, RollingCounter) and committed > 0:
            step = self.now_ms // (counter.window_ms // ROLLING_STEPS)
            budget.spent_by_step[step] = budget.spent_by_step.get(step, 0) + committed
        self.bookings.append(Booking(counter.key, window, committed, held))

    def advance_window(self, counter: Counter) -> int | None:
        """Move a budget to its present window; None if the caller's windows are stale."""
        if isinstance(counter, CalendarCounter):
            return self._advance_calendar_window(counter)
        assert isinstance(counter, RollingCounter)
        return self._advance_rolling_window(counter)

    def is_in_window(self, counter: Counter, window: int) -> bool:
        """Whether a budget is still in a window in which something was held."""
        budget = self.budgets.get(counter.key)
        return isinstance(counter, RollingCounter) or (
            budget is not None and budget.window == window
        )

    def newly_reached_alert(self, counter: Counter) -> int:
        """The highest alert share that a budget has newly reached, in thousandths; 0 if none."""
        if not isinstance(counter, BudgetCounter) or not counter.alert_shares:
            return 0
        budget, limit = self.budgets[counter.key], self._limit(counter)
        used = budget.committed + budget.held
        before = budget.alert_level
        budget.alert_level = sum(used >= share * limit for share in counter.alert_shares)
        if budget.alert_level <= before:
            return 0
        return math.floor(counter.alert_shares[budget.alert_level - 1] * 1000 + 0.5)

    def usage(self, path: Sequence[Counter]) -> list[CounterUsage]:
        """The state of each counter; a rate's committed units are those not yet refilled."""
        return [self._usage(counter) for counter in path]

    def _usage(self, counter: Counter) -> CounterUsage:
        limit = self._limit(counter)
        if isinstance(counter, RateCounter):
            interval_us = counter.period_us / limit
            return CounterUsage(limit, math.ceil(self._backlog_us(counter) / interval_us), 0, 0)
        window = self.advance_window(counter)
        assert window is not None
        budget, ends_ms = self.budgets[counter.key], 0
        if isinstance(counter, CalendarCounter):
            ends_ms = _window_end_ms(counter, window)
        return CounterUsage(limit, budget.committed, budget.held, ends_ms)

    def _check_rate(self, counter: RateCounter, amount: int, limit: int) -> CounterState:
        interval_us = counter.period_us / limit
        room_us = counter.burst * interval_us - self._backlog_us(counter)
        available = max(math.floor(room_us / interval_us), 0)
        verdict, retry_ms = pb.VERDICT_ALLOWED, 0
        if amount > counter.burst:
            verdict = pb.VERDICT_NEVER
        elif amount > 0 and amount * interval_us > room_us:
            verdict = pb.VERDICT_RATE_LIMITED
            retry_ms = math.ceil((amount * interval_us - room_us) / 1000)
        return CounterState(verdict, retry_ms, available, limit, 0, available)

    def _check_budget(
        self, counter: BudgetCounter, amount: int, limit: int, asked: tuple[int, int]
    ) -> CounterState:
        """`asked` is the priority and the demand."""
        window = self.advance_window(counter)
        if window is None:
            return CounterState(STALE_WINDOWS, 0, 0, limit, 0, 0)
        budget = self.budgets[counter.key]
        unspent = limit - budget.committed - budget.held
        protected, slice_ends_in_ms = 0, 0
        if counter.is_adaptive:
            slice_ms = self._record_demand(counter, budget, *asked)
            protected = self._protected(counter, budget, asked[0], slice_ms)
            slice_ends_in_ms = (budget.slice_index + 1) * slice_ms - self.now_ms
        if amount > limit:
            return CounterState(pb.VERDICT_NEVER, 0, unspent, limit, window, unspent)
        if amount > 0 and amount > unspent:
            retry_ms = self._frees_in_ms(counter, budget)
            verdict = pb.VERDICT_BUDGET_EXHAUSTED
            return CounterState(verdict, retry_ms, unspent, limit, window, unspent)
        available = unspent - protected
        if amount > 0 and amount > available:
            verdict = pb.VERDICT_SHED
            return CounterState(verdict, slice_ends_in_ms, available, limit, window, unspent)
        return CounterState(pb.VERDICT_ALLOWED, 0, available, limit, window, unspent)

    def _frees_in_ms(self, counter: BudgetCounter, budget: BudgetState) -> int:
        """Milliseconds until the window ends, or until its oldest step leaves it."""
        if isinstance(counter, CalendarCounter):
            return _window_end_ms(counter, budget.window) - self.now_ms
        assert isinstance(counter, RollingCounter)
        step_ms = counter.window_ms // ROLLING_STEPS
        return max((budget.oldest_step + ROLLING_STEPS + 1) * step_ms - self.now_ms, 1)

    def _advance_calendar_window(self, counter: CalendarCounter) -> int | None:
        if not counter.window_start_ms <= self.now_ms < counter.next_window_end_ms:
            return None
        window = counter.window_start_ms
        if self.now_ms >= counter.window_end_ms:
            window = counter.window_end_ms
        budget = self.budgets.setdefault(counter.key, BudgetState(window))
        if budget.window != window:
            budget.window = window
            budget.committed = budget.held = budget.alert_level = 0
        return window

    def _advance_rolling_window(self, counter: RollingCounter) -> int:
        present = self.now_ms // (counter.window_ms // ROLLING_STEPS)
        budget = self.budgets.get(counter.key)
        if budget is None:
            self.budgets[counter.key] = BudgetState(0, oldest_step=present)
            return 0
        first_kept = present - ROLLING_STEPS
        last = min(first_kept, budget.oldest_step + 2 * ROLLING_STEPS)
        for step in range(budget.oldest_step, last):
            spent = budget.spent_by_step.pop(step, 0)
            if spent:
                budget.committed -= spent
                self.bookings.append(Booking(counter.key, 0, -spent, 0))
        budget.oldest_step = max(budget.oldest_step, first_kept)
        return 0

    def _record_demand(
        self, counter: BudgetCounter, budget: BudgetState, priority: int, demand: int
    ) -> int:
        """Record what was asked for; returns the length of a slice in milliseconds."""
        slice_ms = max(_window_length_ms(counter) // SLICES, 1000)
        index = self.now_ms // slice_ms
        if budget.slice_index != index:
            _end_slices(budget, index, slice_ms)
        if demand > 0:
            budget.present_demand[priority] = budget.present_demand.get(priority, 0) + demand
        return slice_ms

    def _protected(
        self, counter: BudgetCounter, budget: BudgetState, priority: int, slice_ms: int
    ) -> int:
        """What more urgent priorities are forecast to need until the window ends; a rolling window
        looks a quarter of its length ahead.
        """
        demand = sum(
            budget.present_demand.get(urgent, 0) + budget.earlier_demand.get(urgent, 0)
            for urgent in range(priority + 1, MOST_URGENT + 1)
        )
        if demand == 0:
            return 0
        if isinstance(counter, CalendarCounter):
            left_ms = _window_end_ms(counter, budget.window) - self.now_ms
        else:
            left_ms = _window_length_ms(counter) // 4
        present_ms = max(self.now_ms - budget.slice_index * slice_ms, slice_ms // 2)
        return math.floor(SAFETY_FACTOR * demand * left_ms / (budget.observed_ms + present_ms))

    def _limit(self, counter: Counter) -> int:
        return self.limits.get(counter.key, counter.limit)

    def _backlog_us(self, counter: Counter) -> int:
        return max(self.arrival_us.get(counter.key, 0) - self.now_us, 0)


def is_tight(counter: Counter, state: CounterState) -> bool:
    """Whether so little of a strict budget is left that it is not leased."""
    is_strict = isinstance(counter, BudgetCounter) and not counter.is_expected
    return is_strict and state.unspent * TIGHT_PART < state.limit


def _window_end_ms(counter: CalendarCounter, window: int) -> int:
    is_present = window == counter.window_start_ms
    return counter.window_end_ms if is_present else counter.next_window_end_ms


def _window_length_ms(counter: BudgetCounter) -> int:
    if isinstance(counter, CalendarCounter):
        return counter.window_end_ms - counter.window_start_ms
    assert isinstance(counter, RollingCounter)
    return counter.window_ms


def _end_slices(budget: BudgetState, index: int, slice_ms: int) -> None:
    """End the slice that was observed last and all that have passed since."""
    is_first = budget.slice_index == 0
    passed = 0 if is_first else min(index - budget.slice_index, SLICES_REMEMBERED * 8)
    observed_ms = 0 if is_first else budget.observed_ms + slice_ms
    for _ in range(2, passed + 1):
        observed_ms = _faded(observed_ms) + slice_ms
    for priority in range(1, MOST_URGENT + 1):
        earlier = _faded(budget.earlier_demand.get(priority, 0))
        earlier += budget.present_demand.get(priority, 0)
        for _ in range(2, passed + 1):
            earlier = _faded(earlier)
        budget.earlier_demand[priority] = earlier
    budget.present_demand = {}
    budget.slice_index = index
    budget.observed_ms = _faded(observed_ms)


def _take_from_oldest_steps(budget: BudgetState, amount: int) -> int:
    """Take from a rolling window's oldest steps, none below 0; returns how much there was."""
    left = amount
    for step in sorted(budget.spent_by_step):
        part = min(budget.spent_by_step[step], left)
        budget.spent_by_step[step] -= part
        left -= part
    return amount - left


def _faded(total: int) -> int:
    return math.floor(total * (SLICES_REMEMBERED - 1) / SLICES_REMEMBERED)
