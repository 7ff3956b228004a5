"""Agent runs of one organisation in virtual time: the limiter's script on a model of the store."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.limiter.counters import organisation_prefix
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
from penstock.limiter.script import SCRIPT, ScriptReply, to_json
from penstock.simulation.ledger import MAX_LEDGER_BYTES
from penstock.simulation.store_model import StoreModel


class SimulatedRuns:
    """Operations on the runs of one owner.

    Attributes:
        now_ms: the store's time, which its owner moves; never backwards.
    """

    def __init__(self, organisation: str = "acme", owner: str = "k1") -> None:
        self._prefix = organisation_prefix(organisation)
        self._owner = owner
        self._store = StoreModel()
        self.now_ms = 0

    def open(self, run_id: str, parent_id: str, budget: RunBudget) -> RunReply:
        """Start a run, or open a child."""
        if parent_id:
            arguments = child_arguments(run_id, self._owner, parent_id, budget)
            return self._run("run_child", arguments)
        return self._run("run_start", start_arguments(run_id, self._owner, budget))

    def hold(self, run_id: str, hold: RunHold) -> RunReply:
        """Hold what a call may cost."""
        return self._run("run_hold", hold_arguments(run_id, self._owner, hold))

    def settle(self, run_id: str, hold_id: str, parts: Sequence[CostPart]) -> RunReply:
        """End a hold with what was spent."""
        return self._run("run_settle", settle_arguments(run_id, self._owner, hold_id, parts))

    def change(self, run_id: str, change: RunChange) -> RunReply:
        """Raise, pause, cancel or end a run."""
        return self._run("run_change", change_arguments(run_id, self._owner, change))

    def read(self, run_id: str) -> RunReply:
        """A run and those below it."""
        return self._run("run_read", to_json(run_id, self._owner))

    def cost(self, run_id: str) -> RunReply:
        """A run and those below it, and what they have cost."""
        return parse_costs(self._reply("run_cost", to_json(run_id, self._owner)))

    def latest(self, count: int) -> RunReply:
        """The roots used last."""
        return self._run("run_list", to_json(self._owner, count))

    def _run(self, operation: str, arguments: str) -> RunReply:
        return parse_runs(self._reply(operation, arguments))

    def _reply(self, operation: str, arguments: str) -> ScriptReply:
        self._store.now_ms = self.now_ms
        parameters = (operation, self.now_ms * 1000, self._prefix, arguments, MAX_LEDGER_BYTES)
        return self._store.eval(SCRIPT, [f"{self._prefix}holds"], parameters)
