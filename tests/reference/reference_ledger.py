"""A reference model of the ledger in Python, which `ledger.lua` is held against: what may be spent,
what is held, what is spent.

Rates are GCRA (ITU-T I.371): one theoretical arrival time each. Budgets are ledgers with holds:
committed + held + available = limit. What more urgent work is forecast to need is kept for it:
nested protection levels (Littlewood 1972), from the demand of the last slices.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.decisions import (
    NEVER,
    STALE_WINDOWS,
    UNBOUNDED,
    CounterUsage,
    Reservation,
    Ruling,
    Vector,
)
from penstock.limiter.rules import ROLLING_STEPS, Counter

SETTLED_MS, EXPIRED_MS = 60_000, 3_600_000
"""How long a hold is remembered after its end, so that repeating a settlement books nothing twice.
"""
SLICES = 48
"""Demand is observed over slices of a window."""
MEMORY = 8
"""Slices that demand is averaged over; older ones fade."""
CAUTION = 1.5
"""What is kept for urgent work is so many times its forecast."""
MOST_URGENT = 4
TIGHT = 10
"""Below one part in so many of a strict budget, each call is reserved by itself."""


@dataclass
class Hold:
    """What a call or a lease may still spend."""

    path: tuple[Counter, ...]
    starts: list[int]
    most: Vector
    usual: Vector
    least: Vector
    ttl_ms: int
    expires_ms: int
    spent: Vector = field(default_factory=lambda: [0, 0, 0])
    state: str = "open"
    forget_ms: int = UNBOUNDED

    def held(self, counter: Counter) -> int:
        if counter.amount >= 0:
            return counter.amount
        return (self.usual if counter.expected else self.most)[counter.dimension]


@dataclass
class BudgetState:
    """A budget's counter in its present window."""

    window: int
    committed: int = 0
    held: int = 0
    alerted: int = 0
    buckets: dict[int, int] = field(default_factory=dict)
    oldest: int = 0
    slice_index: int = 0
    weight_ms: int = 0
    """Time that `before` stands for."""
    present: dict[int, int] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)


class CounterState(NamedTuple):
    """One counter looked at for one question."""

    verdict: int
    retry_ms: int
    free: int
    limit: int
    start: int
    left: int


class ReferenceLedger:
    """The books of one organisation.

    `now_us` is the store's time, Unix microseconds, and never runs backwards.
    """

    def __init__(self) -> None:
        self.rates: dict[str, int] = {}
        self.accounts: dict[str, BudgetState] = {}
        self.holds: dict[str, Hold] = {}
        self.limits: dict[str, int] = {}
        self.drained = False
        self.ledger: list[tuple[str, int, int, int]] = []
        """Entries (counter, window, committed, held) whose sum is the state."""
        self._due: list[tuple[int, str]] = []
        """When to look at holds again: to expire or to forget them."""
        self._now_us = 0

    @property
    def _now_ms(self) -> int:
        return self._now_us // 1000

    def reserve(
        self, now_us: int, hold_id: str, path: Sequence[Counter], ask: Reservation
    ) -> Ruling:
        """Hold what a call may cost, on every counter of its path or on none."""
        self._at(now_us)
        if hold_id in self.holds:
            most = self.holds[hold_id].most
            return Ruling(pb.VERDICT_ALLOWED, granted=(most[0], most[1], most[2]))
        if self.drained:
            return Ruling(pb.VERDICT_DRAINED)
        grant = [UNBOUNDED] * 3 if ask.lease else list(ask.most)
        refused, starts, tight = self._weigh(path, ask, grant)
        if refused is not None:
            return refused
        if ask.lease and tight:
            return Ruling(pb.VERDICT_ALLOWED, tight=True)
        usual, least = (grant, grant) if ask.lease else (list(ask.usual), list(ask.least))
        hold = Hold(tuple(path), starts, grant, usual, least, ask.ttl_ms, self._now_ms + ask.ttl_ms)
        alerts = self._take(hold)
        if ask.ttl_ms:  # otherwise nobody will settle: it is spent at once
            self.holds[hold_id] = hold
            heapq.heappush(self._due, (hold.expires_ms, hold_id))
        return Ruling(pb.VERDICT_ALLOWED, granted=(grant[0], grant[1], grant[2]), alerts=alerts)

    def _weigh(
        self, path: Sequence[Counter], ask: Reservation, grant: Vector
    ) -> tuple[Ruling | None, list[int], bool]:
        """Look at every counter; a lease's grant shrinks to its share of the tightest.

        Returns refusal, windows, and tightness.
        """
        refused: Ruling | None = None
        starts, tight = [], False
        for index, counter in enumerate(path):
            d = counter.dimension
            need = ask.least[d] if ask.lease else (ask.usual if counter.expected else ask.most)[d]
            need = counter.amount if counter.amount >= 0 else need
            seen = self._look(counter, need, ask.priority, 0 if ask.lease else ask.usual[d])
            starts.append(seen.start)
            if seen.verdict == STALE_WINDOWS:
                return Ruling(STALE_WINDOWS, index, available=self._now_ms), starts, False
            if d == 2 and ask.unpriced:
                seen = seen._replace(verdict=pb.VERDICT_UNPRICED, retry_ms=0)
            if seen.verdict != pb.VERDICT_ALLOWED and not counter.shadow and refused is None:
                refused = Ruling(seen.verdict, index, seen.retry_ms, seen.free)
            if ask.lease:
                grant[d] = min(grant[d], ask.most[d])
                if not counter.shadow:
                    grant[d] = min(grant[d], max(math.floor(seen.free * ask.share), ask.least[d]))
                    tight = tight or _is_tight(counter, seen)
        return refused, starts, tight

    def _take(self, hold: Hold) -> tuple[tuple[int, int], ...]:
        alerts = []
        for index, counter in enumerate(hold.path):
            held = hold.held(counter)
            if held < UNBOUNDED:
                if counter.kind == "rate":
                    self._push(counter, held)
                else:
                    self._book(counter, hold.starts[index], 0, held)
            passed = self._alert(counter)
            if passed:
                alerts.append((index, passed))
        return tuple(alerts)

    def extend(self, now_us: int, hold_id: str, most: Vector) -> Ruling:
        """Enlarge an open hold to a new whole, on every counter or on none."""
        self._at(now_us)
        hold = self.holds.get(hold_id)
        if hold is None or hold.state != "open":
            return Ruling(pb.VERDICT_BUDGET_EXHAUSTED)
        for index, counter in enumerate(hold.path):
            more = most[counter.dimension] - hold.held(counter)
            if more > 0 and not counter.shadow:
                seen = self._look(counter, more, MOST_URGENT, 0)
                if seen.verdict not in (pb.VERDICT_ALLOWED, STALE_WINDOWS):
                    return self._named(Ruling(seen.verdict, index, seen.retry_ms, seen.free), hold)
        for index, counter in enumerate(hold.path):
            more = most[counter.dimension] - hold.held(counter)
            if more > 0:
                if counter.kind == "rate":
                    self._push(counter, more)
                elif self._in_window(hold, index):
                    self._book(counter, hold.starts[index], 0, more)
        hold.most = [max(old, new) for old, new in zip(hold.most, most, strict=True)]
        hold.usual = [max(old, new) for old, new in zip(hold.usual, most, strict=True)]
        hold.expires_ms = self._now_ms + hold.ttl_ms
        return self._named(Ruling(pb.VERDICT_ALLOWED), hold)

    def _named(self, reply: Ruling, hold: Hold) -> Ruling:
        """Add the alerts of a hold that has grown, and the names of its rules where there is one to
        name.
        """
        passed = (
            self._alert(row) if self._in_window(hold, index) else 0
            for index, row in enumerate(hold.path)
        )
        alerts = tuple((index, share) for index, share in enumerate(passed) if share)
        rules = tuple(counter.rule for counter in hold.path) if alerts or reply.at >= 0 else ()
        return reply._replace(alerts=alerts, rules=rules)

    def settle(
        self, now_us: int, hold_id: str, spent: Vector, path: Sequence[Counter] = ()
    ) -> tuple[bool, tuple[int, int, int]]:
        """End a hold with what was spent, or book the difference where it ended before.

        Returns whether it was open, and what it held.

        A hold that is not known is booked on `path` where one is given: the call passed while the
        store was lost.
        """
        self._at(now_us)
        hold = self.holds.get(hold_id)
        if hold is None and path:
            self._settle_unknown(hold_id, spent, path)
            return True, (0, 0, 0)
        if hold is None:
            return False, (0, 0, 0)
        was_open = hold.state == "open"
        for index, counter in enumerate(hold.path):
            d = counter.dimension
            held = hold.held(counter) if was_open else 0
            if counter.kind == "rate":
                if was_open:
                    self._push(counter, spent[d] - hold.spent[d] - held)
            elif self._in_window(hold, index):
                self._roll(counter) if counter.kind == "rolling" else None
                self._book(counter, hold.starts[index], spent[d] - hold.spent[d], -held)
        hold.state, hold.spent, hold.forget_ms = "done", list(spent), self._now_ms + SETTLED_MS
        # A hold that had expired was due to be forgotten an hour after that; settled, it is sooner.
        heapq.heappush(self._due, (hold.forget_ms, hold_id))
        return was_open, (hold.most[0], hold.most[1], hold.most[2])

    def _settle_unknown(self, hold_id: str, spent: Vector, path: Sequence[Counter]) -> None:
        starts = [counter.start if counter.kind == "calendar" else 0 for counter in path]
        for counter, start in zip(path, starts, strict=True):
            amount = spent[counter.dimension]
            if counter.kind == "rate":
                self._push(counter, amount) if amount > 0 else None
            elif self._roll(counter) == start:
                self._book(counter, start, amount, 0)
        done = Hold(
            tuple(path), starts, [0] * 3, [0] * 3, [0] * 3, 0, self._now_ms, list(spent), "done"
        )
        done.forget_ms = self._now_ms + SETTLED_MS
        self.holds[hold_id] = done
        heapq.heappush(self._due, (done.forget_ms, hold_id))

    def renew(
        self, now_us: int, lease_id: str, spent: Vector, wanted: Vector, ask: Reservation
    ) -> Ruling:
        """Book what a lease has spent since its grant and fill it up again to `wanted` where the
        path has it.
        """
        self._at(now_us)
        hold = self.holds.get(lease_id)
        if hold is None or hold.state != "open" or self.drained:
            return Ruling(pb.VERDICT_BUDGET_EXHAUSTED)
        fresh = [max(new - old, 0) for new, old in zip(spent, hold.spent, strict=True)]
        taken = [min(new, most) for new, most in zip(fresh, hold.most, strict=True)]
        hold.most[:] = [
            most if most >= UNBOUNDED else most - part
            for most, part in zip(hold.most, taken, strict=True)
        ]
        more = [want - most for want, most in zip(wanted, hold.most, strict=True)]
        reply = self._fill(hold, fresh, taken, more, ask)
        bounded = {counter.dimension for counter in hold.path}
        for d in range(3):
            if d in bounded and hold.most[d] < UNBOUNDED:
                hold.most[d] = max(hold.most[d] + more[d], 0)
            hold.spent[d] = max(hold.spent[d], spent[d])
        hold.usual = hold.least = hold.most
        hold.expires_ms = self._now_ms + hold.ttl_ms
        return self._named(reply._replace(granted=(hold.most[0], hold.most[1], hold.most[2])), hold)

    def _fill(
        self, hold: Hold, fresh: Vector, taken: Vector, more: Vector, ask: Reservation
    ) -> Ruling:
        reply = Ruling(pb.VERDICT_ALLOWED)
        for index, counter in enumerate(hold.path):
            d = counter.dimension
            if counter.kind != "rate" and self._in_window(hold, index):
                self._roll(counter) if counter.kind == "rolling" else None
                self._book(counter, hold.starts[index], fresh[d], -taken[d])
            current = counter.kind != "calendar" or self._roll(counter) == hold.starts[index]
            seen = self._look(counter, 0, ask.priority, fresh[d])
            if not current or seen.verdict == STALE_WINDOWS:
                more[d] = 0
            elif not counter.shadow:
                more[d] = min(more[d], max(math.floor(seen.free * ask.share), 0))
                more[d] = min(more[d], 0) if _is_tight(counter, seen) else more[d]
            if seen.free <= 0 and reply.at < 0 and not counter.shadow:
                reply = reply._replace(at=index, retry_ms=seen.retry_ms, available=seen.free)
        for index, counter in enumerate(hold.path):
            d = counter.dimension
            part = max(more[d], -hold.most[d])
            if part and hold.most[d] < UNBOUNDED:
                if counter.kind == "rate":
                    self._push(counter, part)
                elif self._in_window(hold, index):
                    self._book(counter, hold.starts[index], 0, part)
        return reply

    def usage(self, now_us: int, path: Sequence[Counter]) -> list[CounterUsage]:
        """State of each counter; a rate's committed part is what has not yet refilled."""
        self._at(now_us)
        rows = []
        for counter in path:
            most = self._limit(counter)
            if counter.kind == "rate":
                rows.append(
                    CounterUsage(
                        most, math.ceil(self._backlog(counter) / (counter.start / most)), 0, 0
                    )
                )
                continue
            start = self._roll(counter)
            account = self.accounts[counter.key]
            ends = (
                0
                if counter.kind == "rolling"
                else counter.end
                if start == counter.start
                else counter.following_end
            )
            rows.append(CounterUsage(most, account.committed, account.held, ends))
        return rows

    def available(self, now_us: int, counter: Counter) -> int:
        """What is neither spent nor held."""
        row = self.usage(now_us, [counter])[0]
        return row.limit - row.committed - row.held

    def _at(self, now_us: int) -> None:
        """Move to a time: holds that have expired settle to what stays spent."""
        self._now_us = now_us
        while self._due and self._due[0][0] <= self._now_ms:
            _, hold_id = heapq.heappop(self._due)
            hold = self.holds.get(hold_id)
            if hold is None:
                continue
            if hold.state == "open" and hold.expires_ms > self._now_ms:
                heapq.heappush(self._due, (hold.expires_ms, hold_id))
            elif hold.state == "open":
                self._expire(hold_id, hold)
            elif hold.forget_ms <= self._now_ms:
                del self.holds[hold_id]
            else:
                heapq.heappush(self._due, (hold.forget_ms, hold_id))

    def _expire(self, hold_id: str, hold: Hold) -> None:
        for index, counter in enumerate(hold.path):
            if counter.kind != "rate" and self._in_window(hold, index):
                self._roll(counter) if counter.kind == "rolling" else None
                self._book(
                    counter, hold.starts[index], hold.least[counter.dimension], -hold.held(counter)
                )
        hold.spent = [spent + least for spent, least in zip(hold.spent, hold.least, strict=True)]
        hold.state, hold.forget_ms = "expired", self._now_ms + EXPIRED_MS
        heapq.heappush(self._due, (hold.forget_ms, hold_id))

    def _look(self, counter: Counter, amount: int, priority: int, asked: int) -> CounterState:
        most = self._limit(counter)
        if counter.kind == "rate":
            return self._look_at_rate(counter, amount, most)
        start = self._roll(counter)
        if start is None:
            return CounterState(STALE_WINDOWS, 0, 0, most, 0, 0)
        account = self.accounts[counter.key]
        free, kept, length = most - account.committed - account.held, 0, 0
        if counter.adaptive:
            length = self._demand(counter, account, priority, asked)
            kept = self._kept(counter, account, priority, length)
        if amount > most:
            return CounterState(NEVER, 0, free, most, start, free)
        if amount > 0 and amount > free:
            return CounterState(
                pb.VERDICT_BUDGET_EXHAUSTED,
                self._frees_in(counter, account),
                free,
                most,
                start,
                free,
            )
        if amount > 0 and amount > free - kept:
            wait = (account.slice_index + 1) * length - self._now_ms
            return CounterState(pb.VERDICT_SHED, wait, free - kept, most, start, free)
        return CounterState(pb.VERDICT_ALLOWED, 0, free - kept, most, start, free)

    def _look_at_rate(self, counter: Counter, amount: int, most: int) -> CounterState:
        interval = counter.start / most
        room = counter.end * interval - self._backlog(counter)
        free = max(math.floor(room / interval), 0)
        if amount > counter.end:
            return CounterState(NEVER, 0, free, most, 0, free)
        if amount > 0 and amount * interval > room:
            wait = math.ceil((amount * interval - room) / 1000)
            return CounterState(pb.VERDICT_RATE_LIMITED, wait, free, most, 0, free)
        return CounterState(pb.VERDICT_ALLOWED, 0, free, most, 0, free)

    def _frees_in(self, counter: Counter, account: BudgetState) -> int:
        """Milliseconds until the window ends, or until its oldest part leaves."""
        if counter.kind == "calendar":
            return (
                counter.end if account.window == counter.start else counter.following_end
            ) - self._now_ms
        return max(
            (account.oldest + ROLLING_STEPS + 1) * (counter.start // ROLLING_STEPS) - self._now_ms,
            1,
        )

    def _roll(self, counter: Counter) -> int | None:
        """Bring a budget's counter to its present window; None when the caller's windows are out of
        date.
        """
        if counter.kind == "calendar":
            if not counter.start <= self._now_ms < counter.following_end:
                return None
            start = counter.end if self._now_ms >= counter.end else counter.start
            account = self.accounts.get(counter.key)
            if account is None:
                self.accounts[counter.key] = BudgetState(start)
            elif account.window != start:
                account.window, account.committed, account.held, account.alerted = start, 0, 0, 0
            return start
        present = self._now_ms // (counter.start // ROLLING_STEPS)
        account = self.accounts.get(counter.key)
        if account is None:
            self.accounts[counter.key] = BudgetState(0, oldest=present)
            return 0
        for index in range(
            account.oldest, min(present - ROLLING_STEPS, account.oldest + 2 * ROLLING_STEPS)
        ):
            spent = account.buckets.pop(index, 0)
            if spent:
                account.committed -= spent
                self.ledger.append((counter.key, 0, -spent, 0))
        account.oldest = max(account.oldest, present - ROLLING_STEPS)
        return 0

    def _book(self, counter: Counter, window: int, committed: int, held: int) -> None:
        account = self.accounts[counter.key]
        if counter.kind == "rolling" and committed < 0:
            committed = -_take_back(account, -committed)
        if not committed and not held:
            return
        account.committed += committed
        account.held += held
        if counter.kind == "rolling" and committed > 0:
            index = self._now_ms // (counter.start // ROLLING_STEPS)
            account.buckets[index] = account.buckets.get(index, 0) + committed
        self.ledger.append((counter.key, window, committed, held))

    def _demand(self, counter: Counter, account: BudgetState, priority: int, asked: int) -> int:
        """Note what was asked for; returns the length of a slice in milliseconds."""
        whole = counter.end - counter.start if counter.kind == "calendar" else counter.start
        length = max(whole // SLICES, 1000)
        index = self._now_ms // length
        if account.slice_index != index:
            passed = min(index - account.slice_index, MEMORY * 8) if account.slice_index else 0
            weight = account.weight_ms + length if account.slice_index else 0
            for _ in range(2, passed + 1):
                weight = _faded(weight) + length
            for p in range(1, MOST_URGENT + 1):
                total = _faded(account.before.get(p, 0)) + account.present.get(p, 0)
                for _ in range(2, passed + 1):
                    total = _faded(total)
                account.before[p] = total
            account.present, account.slice_index, account.weight_ms = {}, index, _faded(weight)
        if asked > 0:
            account.present[priority] = account.present.get(priority, 0) + asked
        return length

    def _kept(self, counter: Counter, account: BudgetState, priority: int, length: int) -> int:
        """What more urgent work is forecast to need until the window ends; a rolling one looks a
        quarter of its length ahead.
        """
        urgent = sum(
            account.present.get(p, 0) + account.before.get(p, 0)
            for p in range(priority + 1, MOST_URGENT + 1)
        )
        if urgent == 0:
            return 0
        if counter.kind == "calendar":
            left = (
                counter.end if account.window == counter.start else counter.following_end
            ) - self._now_ms
        else:
            left = counter.start // 4
        elapsed = max(self._now_ms - account.slice_index * length, length // 2)
        return math.floor(CAUTION * urgent * left / (account.weight_ms + elapsed))

    def _alert(self, counter: Counter) -> int:
        if counter.kind == "rate" or not counter.alerts:
            return 0
        account, most = self.accounts[counter.key], self._limit(counter)
        used = account.committed + account.held
        level = sum(used >= share * most for share in counter.alerts)
        seen, account.alerted = account.alerted, level
        return math.floor(counter.alerts[level - 1] * 1000 + 0.5) if level > seen else 0

    def _limit(self, counter: Counter) -> int:
        return self.limits.get(counter.key, counter.limit)

    def _backlog(self, counter: Counter) -> int:
        return max(self.rates.get(counter.key, 0) - self._now_us, 0)

    def _push(self, counter: Counter, amount: int) -> None:
        interval = counter.start / self._limit(counter)
        arrival = max(self.rates.get(counter.key, 0), self._now_us) + math.ceil(amount * interval)
        self.rates[counter.key] = max(arrival, self._now_us)

    def _in_window(self, hold: Hold, index: int) -> bool:
        counter = hold.path[index]
        account = self.accounts.get(counter.key)
        return counter.kind == "rolling" or (
            account is not None and account.window == hold.starts[index]
        )


def _take_back(account: BudgetState, amount: int) -> int:
    """Take from a rolling window's oldest parts, so that no part is ever below nothing; returns how
    much there was.
    """
    left = amount
    for index in sorted(account.buckets):
        part = min(account.buckets[index], left)
        account.buckets[index] -= part
        left -= part
    return amount - left


def _faded(value: int) -> int:
    """What is left of an average's sum after one more slice."""
    return math.floor(value * (MEMORY - 1) / MEMORY)


def _is_tight(counter: Counter, seen: CounterState) -> bool:
    return counter.kind != "rate" and not counter.expected and seen.left * TIGHT < seen.limit
