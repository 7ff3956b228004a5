"""Agent runs in the ledger's store: each operation is one run of the ledger script, and of one
organisation.

Operations may be repeated: opening, holding and settling by their ids, changes because they say
what is to be and not what is to be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.limiter.run_costs import CostPart
from penstock.limiter.run_trees import (
    RunBudget,
    RunChange,
    RunHold,
    RunReply,
    change_arguments,
    child_arguments,
    hold_arguments,
    parse_costs,
    parse_runs,
    settle_arguments,
    start_arguments,
)
from penstock.limiter.script import to_json
from penstock.limiter.store.ledger_store import LedgerStore


class RunKey(NamedTuple):
    """A run, and who speaks of it."""

    organisation: str
    owner: str
    """The caller's key; only the key that started a tree may use it."""
    run_id: str


class RunStore:
    """Runs of all organisations. Every method raises StoreLost where the store does not answer."""

    def __init__(self, ledger: LedgerStore) -> None:
        self._ledger = ledger

    async def open(self, key: RunKey, parent_id: str, budget: RunBudget) -> RunReply:
        """Start a run, or open a child of `parent_id`; on the store's disk when it returns."""
        if parent_id:
            arguments = child_arguments(key.run_id, key.owner, parent_id, budget)
            reply = await self._run("run_child", key, arguments)
        else:
            arguments = start_arguments(key.run_id, key.owner, budget)
            reply = await self._run("run_start", key, arguments)
        await self._ledger.durable()
        return reply

    async def hold(self, key: RunKey, hold: RunHold, wait_s: float = 0.0) -> RunReply:
        """Hold what a call may cost, or more under the same id.

        Args:
            wait_s: how long to wait for a slow or lost store.
        """
        arguments = hold_arguments(key.run_id, key.owner, hold)
        return await self._run("run_hold", key, arguments, wait_s)

    async def settle(self, key: RunKey, hold_id: str, parts: Sequence[CostPart]) -> RunReply:
        """End a hold with what was spent; on the store's disk when it returns."""
        arguments = settle_arguments(key.run_id, key.owner, hold_id, parts)
        reply = await self._run("run_settle", key, arguments)
        await self._ledger.durable()
        return reply

    async def change(self, key: RunKey, change: RunChange) -> RunReply:
        """Raise, pause, cancel or end a run; on the store's disk when it returns."""
        arguments = change_arguments(key.run_id, key.owner, change)
        reply = await self._run("run_change", key, arguments)
        await self._ledger.durable()
        return reply

    async def read(self, key: RunKey) -> RunReply:
        """A run and those below it."""
        return await self._run("run_read", key, to_json(key.run_id, key.owner))

    async def cost(self, key: RunKey) -> RunReply:
        """A run and those below it, and what they have cost."""
        arguments = to_json(key.run_id, key.owner)
        return parse_costs(await self._ledger.run("run_cost", key.organisation, arguments))

    async def latest(self, organisation: str, owner: str, count: int) -> RunReply:
        """The roots that a key has used last."""
        key = RunKey(organisation, owner, "")
        return await self._run("run_list", key, to_json(owner, count))

    async def _run(
        self, operation: str, key: RunKey, arguments: str, wait_s: float = 0.0
    ) -> RunReply:
        reply = await self._ledger.run(operation, key.organisation, arguments, wait_s)
        return parse_runs(reply)
