"""Budget trees of agent runs: what a run may spend, what its children have of it, and what becomes
of both when it is paused, raised, cancelled or ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.limiter.run_costs import CostLabel, CostPart, spent_of
from penstock.limiter.run_trees import (
    NO_LIMITS,
    RunBudget,
    RunChange,
    RunHold,
    RunNode,
    RunVerdict,
)
from penstock.limiter.store.run_store import RunKey, RunStore
from penstock.simulation.run_ledger import SimulatedRuns
from reference_runs import ReferenceRuns

Limiters = Any
TTL_MS = 10_000
NOTHING = (0, 0, 0)
Amounts = tuple[int, int, int]


def money(microusd: int, *, reserve: int = 0, time_ms: int = 0) -> RunBudget:
    """A budget of micro-dollars alone."""
    return RunBudget("", (-1, -1, microusd), (0, 0, reserve), time_ms)


def cost(microusd: int) -> Amounts:
    return (1, 10, microusd)


def answer(amounts: Amounts) -> list[CostPart]:
    """One answer that has cost so much."""
    return [CostPart(CostLabel(1, "m", ""), amounts)] if any(amounts) else []


class Tree:
    """A started run `r` on the model of the store, asked in few words."""

    def __init__(self, budget: RunBudget) -> None:
        self.runs = SimulatedRuns()
        assert self.open("r", "", budget) is RunVerdict.OK

    def open(self, run_id: str, parent_id: str, budget: RunBudget) -> RunVerdict:
        return self.runs.open(run_id, parent_id, budget).verdict

    def hold(self, run_id: str, hold_id: str, microusd: int, *, final: bool = False) -> RunVerdict:
        return self.runs.hold(run_id, RunHold(hold_id, cost(microusd), TTL_MS, final)).verdict

    def settle(self, run_id: str, hold_id: str, microusd: int) -> RunVerdict:
        return self.runs.settle(run_id, hold_id, answer(cost(microusd))).verdict

    def change(self, run_id: str, action: str, microusd: int = -1) -> RunVerdict:
        change = RunChange(action, "ann", "to look", (-1, -1, microusd))
        return self.runs.change(run_id, change).verdict

    def node(self, run_id: str) -> RunNode:
        return dict(self.runs.read(run_id).runs)[run_id]


def test_a_run_spends_to_its_last_unit_and_is_then_paused_with_what_the_call_would_take() -> None:
    tree = Tree(money(100))
    assert tree.hold("r", "a", 60) is RunVerdict.OK
    tree.settle("r", "a", 60)
    assert tree.hold("r", "b", 41) is RunVerdict.OVER_LIMIT
    node = tree.node("r")
    assert (node.state, node.by, node.wanted) == ("paused", "limit", cost(41))
    assert tree.hold("r", "c", 40) is RunVerdict.OK
    assert tree.node("r").state == "running"


def test_a_call_that_only_waits_for_others_in_flight_does_not_pause_the_run() -> None:
    tree = Tree(money(100))
    tree.hold("r", "a", 60)
    assert tree.hold("r", "b", 41) is RunVerdict.IN_FLIGHT
    assert tree.node("r").state == "running"
    tree.settle("r", "a", 10)
    assert tree.hold("r", "b", 41) is RunVerdict.OK


def test_raising_lets_the_run_go_on_and_a_paid_call_is_not_paid_again() -> None:
    tree = Tree(money(100))
    tree.hold("r", "a", 100)
    tree.settle("r", "a", 100)
    assert tree.hold("r", "b", 50) is RunVerdict.OVER_LIMIT
    for _ in range(2):  # a raise may be repeated
        assert tree.change("r", "raise", 150) is RunVerdict.OK
    assert tree.hold("r", "a", 100) is RunVerdict.SETTLED
    assert tree.settle("r", "a", 100) is RunVerdict.SETTLED
    assert tree.hold("r", "b", 50) is RunVerdict.OK
    assert tree.node("r").used[2] == 150


def test_the_reserve_is_kept_for_the_final_answer_from_calls_and_from_children() -> None:
    tree = Tree(money(100, reserve=30))
    assert tree.open("r.a", "r", money(71)) is RunVerdict.OVER_LIMIT
    assert tree.hold("r", "a", 70) is RunVerdict.OK
    tree.settle("r", "a", 70)
    assert tree.hold("r", "b", 1) is RunVerdict.OVER_LIMIT
    assert tree.hold("r", "final", 30, final=True) is RunVerdict.OK
    assert tree.node("r").state == "paused"
    assert tree.hold("r", "more", 1, final=True) is not RunVerdict.OK


def test_a_childs_share_is_taken_when_it_opens_and_the_rest_comes_back_when_it_ends() -> None:
    tree = Tree(money(100))
    assert tree.open("r.a", "r", money(80)) is RunVerdict.OK
    assert tree.hold("r", "x", 21) is RunVerdict.OVER_LIMIT
    tree.hold("r.a", "y", 50)
    assert tree.change("r.a", "ended") is RunVerdict.OK
    assert tree.node("r").used[2] == 50  # the call in flight is still held
    tree.settle("r.a", "y", 5)
    assert tree.node("r").used[2] == 5
    assert tree.hold("r", "x", 95) is RunVerdict.OK


def test_what_a_late_call_gives_back_reaches_the_first_run_that_is_open() -> None:
    tree = Tree(money(100))
    tree.open("r.a", "r", money(80))
    tree.open("r.b", "r.a", money(60))
    tree.hold("r.b", "y", 60)
    tree.change("r.a", "ended")
    assert tree.node("r").used[2] == 60
    tree.settle("r.b", "y", 1)
    assert tree.node("r").used[2] == 1


def test_a_child_needs_a_share_of_whatever_its_parent_limits() -> None:
    tree = Tree(money(100))
    assert tree.open("r.a", "r", RunBudget(limits=NO_LIMITS)) is RunVerdict.NEEDS_SHARE


def test_a_hold_that_nobody_settles_counts_in_full_until_somebody_does() -> None:
    tree = Tree(money(100))
    tree.hold("r", "a", 70)
    tree.runs.now_ms += TTL_MS
    assert tree.hold("r", "b", 31) is RunVerdict.OVER_LIMIT
    assert tree.settle("r", "a", 5) is RunVerdict.SETTLED
    assert tree.hold("r", "b", 31) is RunVerdict.OK
    assert tree.node("r").spent[2] == 5


def test_a_release_that_overtakes_its_hold_leaves_nothing_held() -> None:
    tree = Tree(money(100))
    tree.runs.settle("r", "a", [])
    assert tree.hold("r", "a", 70) is RunVerdict.SETTLED
    assert tree.node("r").used == NOTHING


def test_a_pause_reaches_those_below_and_a_raise_lets_them_go_on() -> None:
    tree = Tree(money(100))
    tree.open("r.a", "r", money(50))
    tree.hold("r.a", "x", 10)
    tree.change("r", "pause")
    assert tree.hold("r.a", "y", 1) is RunVerdict.PAUSED
    assert tree.hold("r.a", "y", 1, final=True) is RunVerdict.PAUSED
    assert tree.hold("r.a", "x", 12) is RunVerdict.OK  # in flight already
    node = tree.node("r.a")
    assert (node.by, node.why, node.source) == ("ann", "to look", "r")
    tree.change("r.a", "raise")
    assert tree.hold("r.a", "y", 1) is RunVerdict.PAUSED
    tree.change("r", "raise")
    assert tree.hold("r.a", "y", 1) is RunVerdict.OK


def test_a_child_that_was_paused_by_itself_stays_paused_when_its_parent_goes_on() -> None:
    tree = Tree(money(100))
    tree.open("r.a", "r", money(50))
    tree.change("r.a", "pause")
    tree.change("r", "pause")
    tree.change("r.a", "raise")  # not while its parent is paused
    assert tree.hold("r.a", "y", 1) is RunVerdict.PAUSED
    tree.change("r", "raise")
    assert tree.hold("r.a", "y", 1) is RunVerdict.OK


def test_a_cancel_reaches_the_whole_tree_and_nothing_opens_below_it() -> None:
    tree = Tree(money(100))
    tree.open("r.a", "r", money(50))
    tree.open("r.b", "r.a", money(20))
    reply = tree.runs.change("r", RunChange("cancelled", "ann"))
    assert [run_id for run_id, _ in reply.runs] == ["r", "r.a", "r.b"]
    assert {node.state for _, node in reply.runs} == {"cancelled"}
    assert tree.hold("r.b", "x", 1) is RunVerdict.CANCELLED
    assert tree.open("r.c", "r.b", money(1)) is RunVerdict.CANCELLED
    assert tree.change("r", "raise", 500) is RunVerdict.CANCELLED


def test_when_its_time_is_up_a_run_is_paused_until_it_gets_more() -> None:
    tree = Tree(money(100, time_ms=60_000))
    tree.open("r.a", "r", money(50, time_ms=90_000))
    assert tree.node("r.a").ends_ms == 60_000
    tree.runs.now_ms = 60_000
    reply = tree.runs.hold("r", RunHold("x", cost(1), TTL_MS))
    assert (reply.verdict, reply.dimension) == (RunVerdict.OVER_LIMIT, 4)
    tree.runs.change("r", RunChange("raise", time_ms=61_000))
    assert tree.hold("r", "x", 1) is RunVerdict.OK


def test_runs_are_their_owners_alone_and_an_unknown_one_is_said_to_be_unknown() -> None:
    tree = Tree(money(100))
    assert tree.hold("nobody", "x", 1) is RunVerdict.UNKNOWN
    assert tree.hold("r.none", "x", 1) is RunVerdict.MISSING
    other = SimulatedRuns(owner="k2")
    assert other.open("r", "", money(1)).verdict is RunVerdict.OK
    assert [run_id for run_id, _ in tree.runs.latest(10).runs] == ["r"]


def test_depth_and_number_of_runs_are_bounded() -> None:
    tree = Tree(RunBudget())
    parent = "r"
    for level in range(2, 9):
        child = f"r.{level}"
        assert tree.open(child, parent, RunBudget()) is RunVerdict.OK
        parent = child
    assert tree.open("r.9", parent, RunBudget()) is RunVerdict.TOO_MANY
    verdicts = {tree.open(f"r.x{number}", "r", RunBudget()) for number in range(1024 - 8)}
    assert verdicts == {RunVerdict.OK}
    assert tree.open("r.last", "r", RunBudget()) is RunVerdict.TOO_MANY


def test_a_tree_that_nobody_uses_is_forgotten() -> None:
    tree = Tree(money(100))
    tree.hold("r", "a", 1)
    tree.runs.now_ms += 8 * 24 * 3_600_000
    assert tree.hold("r", "b", 1) is RunVerdict.UNKNOWN
    assert tree.runs.latest(10).runs == ()


def test_a_run_that_limits_money_takes_no_call_whose_price_is_not_known() -> None:
    tree = Tree(money(100))
    call = RunHold("a", (1, 10, 0), TTL_MS, is_unpriced=True)
    assert tree.runs.hold("r", call).verdict is RunVerdict.NO_PRICE
    tree.runs.open("free", "", RunBudget())
    assert tree.runs.hold("free", call).verdict is RunVerdict.OK


def test_large_amounts_are_counted_to_the_unit() -> None:
    tree = Tree(money(10**13))
    assert tree.hold("r", "a", 10**13 - 1) is RunVerdict.OK
    tree.settle("r", "a", 10**13 - 1)
    assert tree.hold("r", "b", 2) is RunVerdict.OVER_LIMIT
    assert tree.hold("r", "b", 1) is RunVerdict.OK


async def test_the_real_store_says_the_same_to_many_at_once(limiters: Limiters) -> None:
    stores = [RunStore(limiters.make().store) for _ in range(3)]
    key = RunKey("acme", "k1", "r")
    await stores[0].open(key, "", money(100))
    verdicts = await asyncio.gather(
        *(
            stores[number % 3].hold(key, RunHold(f"h{number}", cost(10), TTL_MS))
            for number in range(30)
        )
    )
    assert sum(reply.verdict is RunVerdict.OK for reply in verdicts) == 10
    for number in range(30):
        spent = answer((1, 1, 3 if number % 2 else 0))
        await stores[number % 3].settle(key, f"h{number}", spent)
    reply = await stores[1].read(key)
    spent = [node.spent for _, node in reply.runs]
    assert tuple(map(sum, zip(*spent, strict=True))) == (30, 30, 45)
    assert (await stores[2].change(key, RunChange("cancelled"))).verdict is RunVerdict.OK
    assert (await stores[0].latest("acme", "k1", 5)).runs[0][1].state == "cancelled"
    other = await stores[0].read(RunKey("acme", "k2", "r"))
    assert other.verdict is RunVerdict.FOREIGN


@dataclass(frozen=True)
class Step:
    """One operation of a history; each kind reads what it needs of the rest."""

    kind: str
    run: int
    other: int
    amounts: Amounts
    flag: bool


KINDS = {
    "open": 8,
    "hold": 12,
    "settle": 8,
    "raise": 3,
    "pause": 1,
    "ended": 1,
    "cancelled": 1,
    "wait": 2,
}
"""How often each kind of step comes."""
parts = st.integers(0, 60)
step = st.builds(
    Step,
    st.sampled_from([kind for kind, weight in KINDS.items() for _ in range(weight)]),
    st.integers(0, 6),
    st.integers(0, 23),
    st.tuples(st.integers(0, 2), parts, parts),
    st.booleans(),
)
IDS = ("r", "r.1", "r.2", "r.3", "r.4", "r.5", "r.6")


class Comparison:
    """The script and the reference side by side."""

    def __init__(self) -> None:
        self.runs, self.reference = SimulatedRuns(), ReferenceRuns()
        root = RunBudget("", (60, -1, 600), (1, 0, 30), 500_000)
        self._open("r", "", root)

    def take(self, taken: Step) -> None:
        known = [run_id for run_id in IDS if run_id in self.reference.nodes]
        run_id, hold_id = known[taken.run % len(known)], f"h{taken.other}"
        held = self.reference.holds.get(hold_id)
        match taken.kind:
            case "open":
                budget = RunBudget("", self._limits(taken), (0, 0, taken.amounts[2] // 4))
                self._open(IDS[taken.other % len(IDS)], run_id, budget)
            case "hold":
                run_id = held.run_id if held is not None else run_id
                hold = RunHold(hold_id, taken.amounts, TTL_MS, taken.flag)
                same = self.runs.hold(run_id, hold).verdict
                assert same is self.reference.hold(
                    run_id, hold_id, taken.amounts, TTL_MS, is_final=taken.flag
                )
            case "settle":
                run_id = held.run_id if held is not None else run_id
                booked = NOTHING if held is None else held.amounts if held.is_open else held.spent
                spent = self._within(booked, taken.amounts)
                same = self.runs.settle(run_id, hold_id, answer(spent)).verdict
                assert same is self.reference.settle(run_id, hold_id, spent)
            case "raise":
                limits = (taken.amounts[0] * 5, taken.amounts[1] * 3, taken.amounts[2] * 3)
                same = self.runs.change(run_id, RunChange("raise", limits=limits)).verdict
                assert same is self.reference.raise_to(run_id, limits)
            case "pause":
                self.runs.change(run_id, RunChange("pause", "ann"))
                self.reference.pause(run_id)
            case "wait":
                self.runs.now_ms += 1 + taken.amounts[1] * 125
                self.reference.now_ms = self.runs.now_ms
            case state if run_id != "r":
                self.runs.change(run_id, RunChange(state))
                self.reference.close(run_id, state)

    def compare(self) -> None:
        self.runs.read("r")
        self.reference.settle("r", "none", NOTHING)  # lets what is due expire
        shown, costs = self.runs.cost("r"), {}
        for row in shown.costs:
            costs.setdefault(row.run_id, []).append(row.part)
        for run_id, node in shown.runs:
            like = self.reference.nodes[run_id]
            assert node.state == like.state
            assert list(node.limits) == like.limits
            assert node.used == tuple(self.reference.used(run_id, part) for part in range(3))
            assert node.spent == spent_of(costs.get(run_id, []))
            for used, limit in zip(node.used, node.limits, strict=True):
                assert limit < 0 or used <= limit

    def _open(self, run_id: str, parent_id: str, budget: RunBudget) -> None:
        same = self.runs.open(run_id, parent_id, budget).verdict
        assert same is self.reference.open(run_id, parent_id, budget)

    @staticmethod
    def _limits(taken: Step) -> Amounts:
        calls, tokens, microusd = taken.amounts
        return (1 + calls * 4, -1 if taken.flag else tokens * 2, 10 + microusd * 2)

    @staticmethod
    def _within(held: Amounts, wanted: Amounts) -> Amounts:
        return (min(held[0], wanted[0]), min(held[1], wanted[1]), min(held[2], wanted[2]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, min_size=20, max_size=60))
def test_the_script_and_the_plain_model_agree_on_any_history(history: Sequence[Step]) -> None:
    both = Comparison()
    for taken in history:
        both.take(taken)
        both.compare()
