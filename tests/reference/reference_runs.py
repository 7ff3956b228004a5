"""Budget trees of agent runs, as plainly as they can be written: every sum is taken anew from the
holds, by walking the tree. The ledger script is held against this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.limiter.run_trees import RunBudget, RunVerdict

Amounts = tuple[int, int, int]
NOTHING: Amounts = (0, 0, 0)
PARTS = range(3)
TIME = 4


@dataclass
class Hold:
    """One call: what it holds while it is open, and then what it has spent."""

    run_id: str
    amounts: Amounts
    spent: Amounts
    expires_ms: float
    is_open: bool = True

    def counts(self, part: int) -> int:
        return self.amounts[part] if self.is_open else self.spent[part]


@dataclass
class Node:
    """One run."""

    parent: str
    budget: RunBudget
    ends_ms: int
    limits: list[int] = field(default_factory=list)
    state: str = "running"
    by_limit: bool = False
    source: str = ""

    @property
    def is_closed(self) -> bool:
        return self.state in ("cancelled", "ended")


class ReferenceRuns:
    """The trees of one owner."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.holds: dict[str, Hold] = {}
        self.now_ms = 0

    def used(self, run_id: str, part: int) -> int:
        """What a run has spent, holds and has shared."""
        own = sum(hold.counts(part) for hold in self.holds.values() if hold.run_id == run_id)
        return own + sum(self._claim(child, part) for child in self._children(run_id))

    def open(self, run_id: str, parent_id: str, budget: RunBudget) -> RunVerdict:
        self._expire()
        if run_id in self.nodes:
            return RunVerdict.OK
        ends_ms = self.now_ms + budget.time_ms if budget.time_ms else 0
        if parent_id:
            parent = self.nodes[parent_id]
            if any(parent.limits[part] >= 0 > budget.limits[part] for part in PARTS):
                return RunVerdict.NEEDS_SHARE
            share = tuple(max(0, limit) for limit in budget.limits)
            refused = self._by_state(parent) or self._by_limit(parent_id, share, is_final=False)
            if refused is not None:
                return refused
            if parent.ends_ms:
                ends_ms = min(ends_ms or parent.ends_ms, parent.ends_ms)
        self.nodes[run_id] = Node(parent_id, budget, ends_ms, list(budget.limits))
        return RunVerdict.OK

    def hold(
        self, run_id: str, hold_id: str, amounts: Amounts, ttl_ms: int, *, is_final: bool
    ) -> RunVerdict:
        self._expire()
        known = self.holds.get(hold_id)
        if known is not None and not known.is_open:
            return RunVerdict.SETTLED
        node, held = self.nodes[run_id], known.amounts if known is not None else NOTHING
        more = tuple(max(0, amounts[part] - held[part]) for part in PARTS)
        if known is not None and not any(more):
            return RunVerdict.OK
        refused = self._by_state(node) if known is None or node.is_closed else None
        refused = refused or self._by_limit(run_id, more, is_final=is_final)
        if refused is not None:
            return refused
        if node.state == "paused" and node.by_limit and not is_final:
            node.state = "running"
        total = (held[0] + more[0], held[1] + more[1], held[2] + more[2])
        self.holds[hold_id] = Hold(run_id, total, NOTHING, self.now_ms + ttl_ms)
        return RunVerdict.OK

    def settle(self, run_id: str, hold_id: str, spent: Amounts) -> RunVerdict:
        self._expire()
        known = self.holds.get(hold_id)
        if known is None:
            self.holds[hold_id] = Hold(run_id, spent, spent, 0, is_open=False)
            return RunVerdict.OK
        was_open, known.is_open, known.spent = known.is_open, False, spent
        return RunVerdict.OK if was_open else RunVerdict.SETTLED

    def raise_to(self, run_id: str, limits: Amounts) -> RunVerdict:
        self._expire()
        node = self.nodes[run_id]
        if node.is_closed:
            return RunVerdict[node.state.upper()]
        more = [
            max(0, limits[part] - node.limits[part]) if node.limits[part] >= 0 else 0
            for part in PARTS
        ]
        if node.parent and self._lacking(node.parent, more, is_final=False) is not None:
            return RunVerdict.OVER_LIMIT
        for part in PARTS:
            node.limits[part] += more[part]
        above = self.nodes.get(node.parent)
        for each in self.subtree(run_id):
            if self.nodes[each].state == "paused" and self.nodes[each].source == run_id:
                if above is not None and above.state == "paused" and not above.by_limit:
                    self.nodes[each].source = above.source
                else:
                    self.nodes[each].state = "running"
        return RunVerdict.OK

    def pause(self, run_id: str) -> None:
        self._expire()
        for each in self.subtree(run_id):
            node = self.nodes[each]
            if node.state == "running" or (node.state == "paused" and node.by_limit):
                node.state, node.by_limit, node.source = "paused", False, run_id

    def close(self, run_id: str, state: str) -> None:
        self._expire()
        for each in self.subtree(run_id):
            if not self.nodes[each].is_closed:
                self.nodes[each].state = state

    def subtree(self, run_id: str) -> list[str]:
        return [run_id, *(each for child in self._children(run_id) for each in self.subtree(child))]

    def _children(self, run_id: str) -> list[str]:
        return [each for each, node in self.nodes.items() if node.parent == run_id]

    def _claim(self, child: str, part: int) -> int:
        node = self.nodes[child]
        if node.limits[part] < 0:
            return 0
        return self.used(child, part) if node.is_closed else node.limits[part]

    def _expire(self) -> None:
        for hold in self.holds.values():
            if hold.is_open and hold.expires_ms <= self.now_ms:
                hold.is_open, hold.spent = False, hold.amounts

    def _by_state(self, node: Node) -> RunVerdict | None:
        if node.is_closed or (node.state == "paused" and not node.by_limit):
            return RunVerdict[node.state.upper()]
        return None

    def _by_limit(
        self, run_id: str, amounts: tuple[int, ...], *, is_final: bool
    ) -> RunVerdict | None:
        dimension = self._lacking(run_id, amounts, is_final=is_final)
        if dimension is None:
            return None
        if dimension != TIME and self._fits_later(run_id, amounts, is_final=is_final):
            return RunVerdict.IN_FLIGHT
        node = self.nodes[run_id]
        node.state, node.by_limit, node.source = "paused", True, run_id
        return RunVerdict.OVER_LIMIT

    def _lacking(
        self, run_id: str, amounts: list[int] | tuple[int, ...], *, is_final: bool
    ) -> int | None:
        node = self.nodes[run_id]
        if node.ends_ms and self.now_ms >= node.ends_ms:
            return TIME
        over = self._over(run_id, amounts, is_final=is_final)
        return next((part for part in PARTS if over[part] > 0), None)

    def _fits_later(self, run_id: str, amounts: tuple[int, ...], *, is_final: bool) -> bool:
        """Whether it would fit if the run's own calls in flight cost nothing."""
        over = self._over(run_id, amounts, is_final=is_final)
        in_flight = [hold for hold in self.holds.values() if hold.run_id == run_id and hold.is_open]
        return all(
            over[part] <= sum(hold.amounts[part] for hold in in_flight) or over[part] <= 0
            for part in PARTS
        )

    def _over(
        self, run_id: str, amounts: list[int] | tuple[int, ...], *, is_final: bool
    ) -> list[int]:
        node = self.nodes[run_id]
        kept = NOTHING if is_final else node.budget.reserve
        return [
            self.used(run_id, part) + kept[part] + amounts[part] - node.limits[part]
            if node.limits[part] >= 0 and amounts[part] > 0
            else 0
            for part in PARTS
        ]
