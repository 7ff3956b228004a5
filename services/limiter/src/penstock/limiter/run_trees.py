"""Agent runs as trees of budgets: the values that the ledger script takes and gives for them.

The theory stands at the head of `ledger/runs.lua`, which decides. Amounts of runs are calls, tokens
and micro-dollars, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from penstock.limiter.counters import Amounts, ThreeAmounts
from penstock.limiter.run_costs import (
    UNSETTLED,
    CostLabel,
    CostPart,
    CostRow,
    parse_rows,
    part_rows,
)
from penstock.limiter.script import ScriptReply, to_json
from penstock.service.purity import pure

DIMENSIONS = ("", "calls", "tokens", "micro-dollars", "time")
"""What decided, by the number in a reply."""
UNLIMITED = -1
NO_LIMITS: ThreeAmounts = (UNLIMITED, UNLIMITED, UNLIMITED)
MAX_RUN_AMOUNT = 10**13
"""The largest limit: ten million dollars. JSON of the store keeps 14 digits."""


class RunVerdict(IntEnum):
    """What the script says of an operation on a run."""

    OK = 1
    UNKNOWN = 2
    """Nobody has started a run of this id, or it has been forgotten."""
    FOREIGN = 3
    """Another key has started it."""
    MISSING = 4
    """The tree is there and has no such child."""
    OVER_LIMIT = 5
    """It does not fit, and the run is paused."""
    IN_FLIGHT = 6
    """It would fit if calls in flight cost nothing."""
    PAUSED = 7
    CANCELLED = 8
    ENDED = 9
    SETTLED = 10
    """The call was settled before."""
    TOO_MANY = 11
    NEEDS_SHARE = 12
    """The parent limits what the child does not."""
    NO_PRICE = 13
    """The run limits money, and the call's model has no price."""


class RunNode(NamedTuple):
    """A run as the store keeps it; the columns of its row in their order."""

    parent: str
    """Id; empty for a root."""
    name: str
    depth: int
    state: str
    """`running`, `paused`, `cancelled` or `ended`."""
    by: str
    """Who has paused or closed it; `limit` where a limit has."""
    why: str
    source: str
    """Id of the run on which it was paused: its own or one above."""
    limits: ThreeAmounts
    """Below 0: none."""
    reserve: ThreeAmounts
    """Part of the limits that only calls for a final answer may draw on."""
    spent: ThreeAmounts
    held: ThreeAmounts
    shared: ThreeAmounts
    """What children have of it: the limits of open ones, what closed ones have used."""
    wanted: ThreeAmounts
    """What the call would have taken that paused it."""
    started_ms: int
    """Unix milliseconds."""
    ends_ms: int
    """Unix milliseconds; 0: no limit of time."""

    @property
    def used(self) -> ThreeAmounts:
        """What is spent, held and shared."""
        calls, tokens, microusd = (
            sum(parts) for parts in zip(self.spent, self.held, self.shared, strict=True)
        )
        return calls, tokens, microusd


class RunReply(NamedTuple):
    """What an operation came to."""

    verdict: RunVerdict
    dimension: int = 0
    """1 calls, 2 tokens, 3 micro-dollars, 4 time: what decided. Of TOO_MANY: 1 runs, 2 runs of the
    tree, 3 levels, 4 calls in flight.
    """
    runs: tuple[tuple[str, RunNode], ...] = ()
    """Ids and nodes, the topmost first."""
    costs: tuple[CostRow, ...] = ()
    """Of `run_cost` alone."""


class RunBudget(NamedTuple):
    """What a run is opened with."""

    name: str = ""
    limits: ThreeAmounts = NO_LIMITS
    reserve: ThreeAmounts = (0, 0, 0)
    time_ms: int = 0
    """0: no limit."""


class RunChange(NamedTuple):
    """What is to become of a run and of those below it."""

    action: str
    """`raise`, `pause`, `cancelled` or `ended`."""
    by: str = ""
    why: str = ""
    limits: ThreeAmounts = NO_LIMITS
    """Of a raise: the new limits; below 0 those that stay."""
    time_ms: int = 0
    """Of a raise: the new limit of time, from the start of the run; 0: it stays."""


@pure
def start_arguments(run_id: str, owner: str, budget: RunBudget) -> str:
    """The arguments of `run_start`."""
    return to_json(run_id, owner, *budget)


@pure
def child_arguments(run_id: str, owner: str, parent_id: str, budget: RunBudget) -> str:
    """The arguments of `run_child`."""
    return to_json(run_id, owner, parent_id, *budget)


class RunHold(NamedTuple):
    """What a call asks of its run."""

    hold_id: str
    amounts: Amounts
    """The most that it may cost."""
    ttl_ms: int
    """After this an open hold counts as spent."""
    is_final: bool = False
    """Whether it may draw on the reserve."""
    is_unpriced: bool = False
    """Whether the amounts say nothing of money, because the model has no price."""
    label: CostLabel = UNSETTLED
    """What it counts as when it has expired."""


@pure
def hold_arguments(run_id: str, owner: str, hold: RunHold) -> str:
    """The arguments of `run_hold`."""
    flags = int(hold.is_final), int(hold.is_unpriced)
    return to_json(run_id, owner, hold.hold_id, hold.amounts, hold.ttl_ms, *flags, hold.label.text)


@pure
def settle_arguments(run_id: str, owner: str, hold_id: str, parts: Sequence[CostPart]) -> str:
    """The arguments of `run_settle`."""
    return to_json(run_id, owner, hold_id, part_rows(parts))


@pure
def change_arguments(run_id: str, owner: str, change: RunChange) -> str:
    """The arguments of `run_change`."""
    return to_json(run_id, owner, *change)


@pure
def parse_runs(reply: ScriptReply) -> RunReply:
    """The reply of every operation on runs."""
    verdict, dimension, *pairs = reply
    return RunReply(RunVerdict(verdict), dimension, _nodes(pairs))


@pure
def parse_costs(reply: ScriptReply) -> RunReply:
    """The reply of `run_cost`."""
    verdict, dimension, *rest = reply
    if not rest:
        return RunReply(RunVerdict(verdict), dimension)
    first = 1 + 2 * rest[0]
    runs, costs = _nodes(rest[1:first]), parse_rows(rest[first:])
    return RunReply(RunVerdict(verdict), dimension, runs, costs)


def _nodes(pairs: ScriptReply) -> tuple[tuple[str, RunNode], ...]:
    return tuple((_text(pairs[at]), _node(pairs[at + 1])) for at in range(0, len(pairs), 2))


def _node(packed: bytes) -> RunNode:
    row: list[Any] = json.loads(_text(packed))
    return RunNode(*(_column(value) for value in row))


def _column(value: Any) -> Any:
    """A column with whole numbers: the store's JSON may write a large one as 1e+13."""
    if isinstance(value, float):
        return int(value)
    return tuple(int(part) for part in value) if isinstance(value, list) else value


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
