"""Who goes first: weighted fair queueing between classes and tenants.

Plain values; `now` is an argument; nothing waits here.

Between classes: start-time fair queueing (Goyal, Vin and Cheng, 1996) with a burst credit, by which
a class acts as strict priority while it stays inside its share and as a fair share beyond. Between
tenants of a class: the same by tokens, without banked credit. Within a tenant: earliest deadline
first. Ownership: the scheduler owns an entry from `push` until `take`, `remove` or `pop_expired`
gives it back.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

LOW, NORMAL, HIGH, CRITICAL = 1, 2, 3, 4
POSTPONED = "\x00postponed"
"""Flow of the entries that are served after all others of their class."""
DEFAULT_WEIGHTS: Mapping[int, float] = {CRITICAL: 16.0, HIGH: 8.0, NORMAL: 4.0, LOW: 1.0}
BURST_CREDITS: Mapping[int, float] = {CRITICAL: 200.0, HIGH: 60.0, NORMAL: 20.0, LOW: 0.0}
"""Tokens divided by weight that a class may be served ahead of its share when it comes back from
idle.
"""


class WorkItem(NamedTuple):
    """Work that waits: `tokens` is its size, `deadline_s` the last moment to begin it, on the
    monotonic clock as `arrived_s` is.

    A named tuple, because one is made for every request and a frozen dataclass takes four times as
    long to make.
    """

    id: int
    priority: int
    tenant: str
    model: str
    rows: int
    tokens: int
    arrived_s: float
    deadline_s: float


@dataclass(slots=True)
class CoDel:
    """Controlled delay (Nichols and Jacobson, 2012), used to tell overload from a burst: the queue
    is overloaded once the wait of what is served has not fallen below `target_s` for a whole
    `interval_s`, and until it does.
    """

    target_s: float = 0.1
    interval_s: float = 0.5
    above_since_s: float | None = None
    overloaded: bool = False

    def observe(self, waited_s: float, now: float) -> None:
        """An entry is served after having waited so long."""
        if waited_s < self.target_s:
            self.above_since_s, self.overloaded = None, False
        elif self.above_since_s is None:
            self.above_since_s = now
        elif now - self.above_since_s >= self.interval_s:
            self.overloaded = True


@dataclass(slots=True)
class _Tenant:
    finish: float = 0.0
    heap: list[tuple[float, int, WorkItem]] = field(default_factory=list)
    tokens: int = 0


@dataclass(slots=True)
class _Class:
    weight: float
    credit: float
    finish: float = 0.0
    virtual: float = 0.0
    tenants: dict[str, _Tenant] = field(default_factory=dict)
    rows: int = 0


class FairQueue:
    """The waiting entries of one instance, in the order in which they should be served."""

    def __init__(
        self,
        weights: Mapping[int, float] = DEFAULT_WEIGHTS,
        credits: Mapping[int, float] = BURST_CREDITS,  # noqa: A002
        strict: bool = False,
    ) -> None:
        self.strict = strict
        self.codel = CoDel()
        self._classes = {
            priority: _Class(weight, credits.get(priority, 0.0))
            for priority, weight in weights.items()
        }
        self._virtual = 0.0
        self._order = itertools.count()
        self._live: dict[int, WorkItem] = {}
        self._counts: Counter[tuple[str, int]] = Counter()

    def __len__(self) -> int:
        return len(self._live)

    def rows(self, priority: int) -> int:
        """Rows that wait in a class."""
        return self._classes[priority].rows

    def count(self, model: str, priority: int | None = None) -> int:
        """Entries of a model that wait, all or those of a class."""
        if priority is not None:
            return self._counts[model, priority]
        return sum(count for (name, _), count in self._counts.items() if name == model)

    def oldest_s(self, priority: int) -> float | None:
        """When the oldest entry of a class arrived, None where none waits."""
        return min(
            (entry.arrived_s for entry in self._live.values() if entry.priority == priority),
            default=None,
        )

    def tokens(self) -> int:
        """Tokens that wait in all classes."""
        return sum(entry.tokens for entry in self._live.values())

    def configure(self, weights: Mapping[int, float], strict: bool) -> None:
        """Change the weights of classes and the order between them, for what waits already too."""
        self.strict = strict
        for priority, weight in weights.items():
            self._classes[priority].weight = weight

    def push(self, entry: WorkItem) -> None:
        """Take an entry."""
        group = self._classes[entry.priority]
        if not group.rows:
            group.finish = max(group.finish, self._virtual - (0.0 if self.strict else group.credit))
        tenant = group.tenants.get(entry.tenant)
        if tenant is None:
            tenant = group.tenants[entry.tenant] = _Tenant(finish=group.virtual)
        elif not tenant.heap:
            tenant.finish = max(tenant.finish, group.virtual)
        if entry.tenant == POSTPONED:
            tenant.finish = math.inf
        heapq.heappush(tenant.heap, (entry.deadline_s, next(self._order), entry))
        tenant.tokens += entry.tokens
        group.rows += entry.rows
        self._live[entry.id] = entry
        self._counts[entry.model, entry.priority] += 1

    def remove(self, entry_id: int) -> WorkItem | None:
        """Give back an entry whose caller has gone; None where it is not here any more."""
        entry = self._live.pop(entry_id, None)
        if entry is not None:
            self._forget(entry)
        return entry

    def postpone(self, entry_id: int) -> None:
        """Serve an entry after all others of its class: its own time in the queue is up, its
        caller's is not.
        """
        entry = self.remove(entry_id)
        if entry is not None:
            self.push(entry._replace(tenant=POSTPONED))

    def pop_expired(self, now: float) -> list[WorkItem]:
        """Give back every entry whose time is up."""
        late = [entry for entry in self._live.values() if entry.deadline_s <= now]
        for entry in late:
            self.remove(entry.id)
        return late

    def in_order(self, most: int) -> Iterator[WorkItem]:
        """The next entries as the order stands, at most `most`, without serving any: the look-ahead
        of the batch former.
        """
        for group in self._class_order():
            heaps = sorted(
                (tenant for tenant in group.tenants.values() if tenant.tokens),
                key=lambda tenant: tenant.finish,
            )
            for tenant in heaps:
                for entry in self._tenant_order(tenant, most):
                    yield entry
                    most -= 1
                    if not most:
                        return

    def _class_order(self) -> list[_Class]:
        """Fair order: by finish tag.

        Strict order: the most urgent first, but a class that has fallen behind its share before it.
        """
        backlogged = [(priority, group) for priority, group in self._classes.items() if group.rows]
        if not self.strict:
            return [group for _, group in sorted(backlogged, key=lambda item: item[1].finish)]
        by_urgency = [group for _, group in sorted(backlogged, key=lambda item: -item[0])]
        behind = sorted(
            (group for group in by_urgency if group.finish < self._virtual),
            key=lambda group: group.finish,
        )
        return behind + [group for group in by_urgency if group not in behind]

    def _tenant_order(self, tenant: _Tenant, most: int) -> list[WorkItem]:
        """Earliest deadline first; newest first while overloaded, because the oldest will not be in
        time anyway.
        """
        live = [item for item in tenant.heap if item[2].id in self._live]
        if self.codel.overloaded:
            return [
                item[2]
                for item in heapq.nlargest(
                    most, live, key=lambda item: (item[2].arrived_s, item[1])
                )
            ]
        return [item[2] for item in heapq.nsmallest(most, live)]

    def take(self, entry: WorkItem) -> None:
        """Take an entry out to be served, charged to its own class and tenant."""
        entry = self._live.pop(entry.id)
        group = self._classes[entry.priority]
        tenant = group.tenants[entry.tenant]
        if self.strict:
            # Virtual time of an ideal fair server: who is behind it has had less than its share.
            self._virtual += entry.tokens / sum(
                item.weight for item in self._classes.values() if item.rows
            )
        else:
            self._virtual = max(self._virtual, group.finish)
        group.finish += entry.tokens / group.weight
        if entry.tenant != POSTPONED:
            group.virtual = max(group.virtual, tenant.finish)
            tenant.finish += entry.tokens
        self._forget(entry)

    def drop_candidate(self, model: str = "", priority: int | None = None) -> WorkItem | None:
        """The newest entry of the flow that is longest for its class's weight: what a full queue
        drops. Of one model's entries, or one class's, where only that queue is full.
        """
        mixed = bool(model) and self.count(model) < len(self)

        def waiting(tenant: _Tenant) -> Iterator[WorkItem]:
            of_any = (entry for _, _, entry in tenant.heap if entry.id in self._live)
            return (entry for entry in of_any if entry.model == model) if mixed else of_any

        def tokens(tenant: _Tenant) -> int:
            return sum(entry.tokens for entry in waiting(tenant)) if mixed else tenant.tokens

        groups = self._classes.values() if priority is None else (self._classes[priority],)
        flows = [
            (tokens(tenant) / group.weight, tenant)
            for group in groups
            for tenant in group.tenants.values()
        ]
        length, longest = max(flows, key=lambda flow: flow[0], default=(0.0, None))
        if not length or longest is None:
            return None
        return max(waiting(longest), key=lambda entry: (entry.arrived_s, entry.id))

    def _forget(self, entry: WorkItem) -> None:
        group = self._classes[entry.priority]
        tenant = group.tenants[entry.tenant]
        group.rows -= entry.rows
        tenant.tokens -= entry.tokens
        self._counts[entry.model, entry.priority] -= 1
        while tenant.heap and tenant.heap[0][2].id not in self._live:
            heapq.heappop(tenant.heap)
        if not tenant.heap and (tenant.finish <= group.virtual or entry.tenant == POSTPONED):
            del group.tenants[entry.tenant]


def refusal(entry: WorkItem, now: float, waiting_ms: float) -> str | None:
    """Why an entry cannot be served in time: what is before it takes longer than it may wait for
    its beginning.
    """
    left_ms = (entry.deadline_s - now) * 1e3
    if waiting_ms <= left_ms:
        return None
    return (
        f"the predicted wait of {waiting_ms:.0f} ms exceeds the {max(0.0, left_ms):.0f} ms that "
        "are left for it"
    )
