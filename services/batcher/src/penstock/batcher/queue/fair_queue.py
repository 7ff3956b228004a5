"""The order in which waiting requests are served: weighted fair queueing.

Four rules, one inside the other:

1. Between priority classes: start-time fair queueing (Goyal, Vin and Cheng, 1996). Every class has
   a tag in virtual time, which grows by tokens divided by weight as the class is served; the class
   with the smallest tag is next. A class that was idle continues from the present virtual time
   less its burst credit. Inside its share it is therefore served first, as with strict priority;
   beyond its share it is served fairly.
2. Between the tenants of a class: the same by tokens, with equal weights and without credit, so
   that an idle tenant saves nothing up.
3. Between the agent runs of a tenant: the same by tokens, so that the next step of one run does
   not wait for everything that the others have queued. An item without a run counts as a run.
4. Where these are equal, as they are without runs: earliest deadline first. While CoDel reports
   overload, a tenant's newest first, because the oldest requests would end too late anyway.

Plain values: `now` is an argument and nothing waits here. Ownership: the queue owns an item from
`push` until `take`, `remove` or `pop_expired` gives it back.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock.batcher.queue.codel import CoDel
from penstock.batcher.queue.requests import CRITICAL, HIGH, LOW, NORMAL, WorkItem
from penstock.batcher.queue.run_order import RunOrder

POSTPONED = "\x00postponed"
"""Tenant name of the items that are served after all others of their class."""
DEFAULT_WEIGHTS: Mapping[int, float] = {CRITICAL: 16.0, HIGH: 8.0, NORMAL: 4.0, LOW: 1.0}
BURST_CREDITS: Mapping[int, float] = {CRITICAL: 200.0, HIGH: 60.0, NORMAL: 20.0, LOW: 0.0}
"""By class: how far ahead of its share it may be served when it comes back from idle, in tokens
divided by weight.
"""


@dataclass(slots=True)
class _TenantFlow:
    """The items of one tenant in one class."""

    tag: float = 0.0
    """Virtual time in tokens at which the tenant's next item starts."""
    heap: list[tuple[float, float, int, WorkItem]] = field(default_factory=list)
    """By start tag of the run, deadline, arrival; items that were removed stay until they reach the
    top.
    """
    runs: RunOrder = field(default_factory=RunOrder)
    tokens: int = 0


@dataclass(slots=True)
class _ClassFlow:
    """The items of one priority class."""

    weight: float
    credit: float
    tag: float = 0.0
    """Virtual time, in tokens divided by weight, at which the class's next item starts."""
    virtual_time: float = 0.0
    """Virtual time of the class's own tenants."""
    tenants: dict[str, _TenantFlow] = field(default_factory=dict)
    rows: int = 0
    tokens: int = 0
    codel: CoDel = field(default_factory=CoDel)
    """Of each class its own: where the urgent are served at once, the others may be overloaded."""


class FairQueue:
    """The waiting items of one instance, in the order in which they should be served."""

    def __init__(
        self,
        weights: Mapping[int, float] = DEFAULT_WEIGHTS,
        burst_credits: Mapping[int, float] = BURST_CREDITS,
        strict: bool = False,
    ) -> None:
        self.strict = strict
        self._classes = {
            priority: _ClassFlow(weight, burst_credits.get(priority, 0.0))
            for priority, weight in weights.items()
        }
        self._virtual_time = 0.0
        self._sequence = itertools.count()
        self._items: dict[int, WorkItem] = {}
        self._counts: Counter[tuple[str, bool, int]] = Counter()
        self._tokens: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._items)

    def rows(self, priority: int) -> int:
        """Rows that wait in a class."""
        return self._classes[priority].rows

    def count(self, model: str, priority: int | None = None, *, is_streamed: bool = False) -> int:
        """Items of a model that wait: of one class, or of all classes where `priority` is None."""
        if priority is not None:
            return self._counts[model, is_streamed, priority]
        return sum(
            count
            for (name, streamed, _), count in self._counts.items()
            if name == model and streamed == is_streamed
        )

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that wait, by model."""
        return self._tokens

    def share_ahead(self, item: WorkItem) -> float:
        """Share of the waiting tokens, 0 to 1, that would be served before an item that came now,
        if nothing came after it: what its tenant's runs are served before it, and of every other
        tenant and class as much as is due to them until then.
        """
        flow = self._classes[item.priority]
        of_class, tag = self._ahead_in_class(flow, item), self._next_tag(flow)
        tag += of_class / flow.weight
        ahead = of_class + sum(
            self._ahead_of_class(other, tag, is_more_urgent=priority > item.priority)
            for priority, other in self._classes.items()
            if other is not flow
        )
        waiting = sum(self._tokens.values())
        return min(1.0, ahead / waiting) if waiting else 0.0

    def _ahead_in_class(self, flow: _ClassFlow, item: WorkItem) -> float:
        own = flow.tenants.get(item.tenant)
        own_tokens, own_tag = (own.runs.tokens_ahead(item.run_id), own.tag) if own else (0.0, 0.0)
        tag = max(own_tag, flow.virtual_time) + own_tokens
        others = [tenant for tenant in flow.tenants.values() if tenant is not own]
        return own_tokens + sum(_due(each.tokens, each.tag, tag) for each in others)

    def _ahead_of_class(self, flow: _ClassFlow, tag: float, *, is_more_urgent: bool) -> float:
        """Waiting tokens of a class that are served before an item of another one with this tag."""
        if not self.strict:
            return _due(flow.tokens, flow.tag, tag, flow.weight)
        if is_more_urgent:
            return flow.tokens
        return _due(flow.tokens, flow.tag, self._virtual_time, flow.weight)

    def _next_tag(self, flow: _ClassFlow) -> float:
        """The tag of a class's next item; that of a class without one, if one came now."""
        if flow.rows:
            return flow.tag
        credit = 0.0 if self.strict else flow.credit
        return max(flow.tag, self._virtual_time - credit)

    def oldest_arrival_s(self, priority: int) -> float | None:
        """When the oldest item of a class arrived; None where none waits."""
        return min(
            (item.arrived_s for item in self._items.values() if item.priority == priority),
            default=None,
        )

    def observe_wait(self, item: WorkItem, now: float) -> None:
        """Record that an item is served now."""
        self._classes[item.priority].codel.observe(now - item.arrived_s, now)

    def configure(self, weights: Mapping[int, float], strict: bool) -> None:
        """Change the weights and the order between classes, for what waits already too."""
        self.strict = strict
        for priority, weight in weights.items():
            self._classes[priority].weight = weight

    def push(self, item: WorkItem) -> None:
        """Add an item."""
        flow = self._classes[item.priority]
        flow.tag = self._next_tag(flow)
        tenant = self._tenant_flow(flow, item.tenant)
        start = tenant.runs.enter(item.run_id, item.tokens)
        heapq.heappush(tenant.heap, (start, item.deadline_s, next(self._sequence), item))
        tenant.tokens += item.tokens
        flow.tokens += item.tokens
        flow.rows += item.rows
        self._items[item.id] = item
        self._tokens[item.model] += item.tokens
        self._counts[item.model, item.is_streamed, item.priority] += 1

    @staticmethod
    def _tenant_flow(flow: _ClassFlow, name: str) -> _TenantFlow:
        """A tenant's flow in its class, made where there is none; one that was idle continues from
        the class's present virtual time.
        """
        tenant = flow.tenants.get(name)
        if tenant is None:
            tenant = flow.tenants[name] = _TenantFlow(tag=flow.virtual_time)
        elif not tenant.heap:
            tenant.tag = max(tenant.tag, flow.virtual_time)
        if name == POSTPONED:
            tenant.tag = math.inf
        return tenant

    def remove(self, item_id: int) -> WorkItem | None:
        """Give back an item whose caller has left; None where it is not in the queue."""
        item = self._items.pop(item_id, None)
        if item is not None:
            tenant = self._classes[item.priority].tenants[item.tenant]
            tenant.runs.give_back(item.run_id, item.tokens)
            self._discount(item)
        return item

    def postpone(self, item_id: int) -> None:
        """Serve an item after all others of its class: its queue timeout has passed, its caller's
        deadline has not.
        """
        item = self.remove(item_id)
        if item is not None:
            self.push(item._replace(tenant=POSTPONED))

    def pop_expired(self, now: float) -> list[WorkItem]:
        """Give back every item whose latest moment to begin has passed."""
        expired = [item for item in self._items.values() if item.deadline_s <= now]
        for item in expired:
            self.remove(item.id)
        return expired

    def in_order(self, max_items: int) -> Iterator[WorkItem]:
        """The next items in serving order, `max_items` at most; none of them is taken out.

        This is the look-ahead of batch formation.
        """
        left = max_items
        for flow in self._class_order():
            backlogged = [tenant for tenant in flow.tenants.values() if tenant.tokens]
            for tenant in sorted(backlogged, key=lambda tenant: tenant.tag):
                for item in self._tenant_order(tenant, left, newest_first=flow.codel.overloaded):
                    yield item
                    left -= 1
                    if not left:
                        return

    def _class_order(self) -> list[_ClassFlow]:
        """The classes with waiting items, the next one first.

        Fair order is by tag. Strict order is by urgency, except that a class whose tag is behind
        the virtual time, so that it has had less than its share, goes before all others.
        """
        backlogged = [(priority, flow) for priority, flow in self._classes.items() if flow.rows]
        if not self.strict:
            return [flow for _, flow in sorted(backlogged, key=lambda entry: entry[1].tag)]
        by_urgency = [flow for _, flow in sorted(backlogged, key=lambda entry: -entry[0])]
        behind = [flow for flow in by_urgency if flow.tag < self._virtual_time]
        behind.sort(key=lambda flow: flow.tag)
        return behind + [flow for flow in by_urgency if flow not in behind]

    def _tenant_order(
        self, tenant: _TenantFlow, max_items: int, *, newest_first: bool
    ) -> list[WorkItem]:
        """A tenant's items: by run and deadline, or newest first while overloaded."""
        waiting = [entry for entry in tenant.heap if entry[-1].id in self._items]
        if newest_first:
            newest = heapq.nlargest(
                max_items, waiting, key=lambda entry: (entry[-1].arrived_s, entry[2])
            )
            return [item for *_, item in newest]
        return [item for *_, item in heapq.nsmallest(max_items, waiting)]

    def take(self, item: WorkItem) -> None:
        """Take an item out to be served and charge it to its class and tenant."""
        item = self._items.pop(item.id)
        flow = self._classes[item.priority]
        tenant = flow.tenants[item.tenant]
        tenant.runs.serve(item.run_id, item.tokens)
        if self.strict:
            # Virtual time of an ideal fair server: a class behind it has had less than its share.
            backlogged_weight = sum(each.weight for each in self._classes.values() if each.rows)
            self._virtual_time += item.tokens / backlogged_weight
        else:
            self._virtual_time = max(self._virtual_time, flow.tag)
        flow.tag += item.tokens / flow.weight
        if item.tenant != POSTPONED:
            flow.virtual_time = max(flow.virtual_time, tenant.tag)
            tenant.tag += item.tokens
        self._discount(item)

    def drop_candidate(
        self, newcomer: WorkItem | None = None, priority: int | None = None
    ) -> WorkItem | None:
        """The item that a full queue drops: of the flow that has the most waiting tokens for its
        class's weight, the newest one of the run that has the most; None where nothing waits.

        Args:
            newcomer: whose queue limit is reached: only items that share it are considered. None
                considers all.
            priority: only this class, where its own limit is reached.
        """
        same_limit = newcomer
        if newcomer is not None and self._count_like(newcomer) == len(self):
            same_limit = None  # nothing else waits, so no item needs to be looked at
        classes = self._classes.values() if priority is None else (self._classes[priority],)
        flows = [
            (self._tokens_of(tenant, same_limit) / flow.weight, tenant)
            for flow in classes
            for tenant in flow.tenants.values()
        ]
        length, longest = max(flows, key=lambda entry: entry[0], default=(0.0, None))
        if longest is None or not length:
            return None
        tokens: Counter[str] = Counter()
        candidates = self._items_of(longest, same_limit)
        for item in candidates:
            tokens[item.run_id] += item.tokens
        return max(candidates, key=lambda item: (tokens[item.run_id], item.arrived_s, item.id))

    def _count_like(self, item: WorkItem) -> int:
        return self.count(item.model, is_streamed=item.is_streamed)

    def _tokens_of(self, tenant: _TenantFlow, same_limit: WorkItem | None) -> int:
        if same_limit is None:
            return tenant.tokens
        return sum(item.tokens for item in self._items_of(tenant, same_limit))

    def _items_of(self, tenant: _TenantFlow, same_limit: WorkItem | None) -> list[WorkItem]:
        waiting = [item for *_, item in tenant.heap if item.id in self._items]
        if same_limit is None:
            return waiting
        return [item for item in waiting if item.shares_limit_with(same_limit)]

    def _discount(self, item: WorkItem) -> None:
        """Undo what `push` counted, and forget a tenant that has nothing left to remember."""
        flow = self._classes[item.priority]
        tenant = flow.tenants[item.tenant]
        flow.rows -= item.rows
        flow.tokens -= item.tokens
        tenant.tokens -= item.tokens
        self._tokens[item.model] -= item.tokens
        if not self._tokens[item.model]:
            del self._tokens[item.model]
        key = (item.model, item.is_streamed, item.priority)
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        while tenant.heap and tenant.heap[0][-1].id not in self._items:
            heapq.heappop(tenant.heap)
        if not tenant.heap and (tenant.tag <= flow.virtual_time or item.tenant == POSTPONED):
            del flow.tenants[item.tenant]


def _due(tokens: int, tag: float, until_tag: float, weight: float = 1.0) -> float:
    """Of a flow's waiting tokens, those that are served before virtual time reaches `until_tag`."""
    return min(float(tokens), max(0.0, (until_tag - tag) * weight))
