"""What the calls of a run have cost, by run, step and what it was paid for: exact to the last
millionth of a micro-dollar, whatever is settled late, twice or never.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from penstock.api.common.v1 import run_pb2
from penstock.api.limiter.v1 import runs_pb2 as pb
from penstock.limiter.run_costs import UNSETTLED, CostLabel, CostPart, CostRow
from penstock.limiter.run_trees import RunBudget, RunHold, RunVerdict
from penstock.limiter.store.run_store import RunKey, RunStore
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.simulation.run_ledger import SimulatedRuns

Limiters = Any
TTL_MS, PICOUSD = 10_000, 10**6
ANSWER = CostLabel(run_pb2.RUN_COST_KIND_ANSWER, "m", "plan")
LOOK_UP = CostLabel(run_pb2.RUN_COST_KIND_LOOK_UP, "m", "plan")
CALLER = Call(Principal("acme", key_id="k1"), deadline_s=1e12)


@pytest.fixture
def runs() -> SimulatedRuns:
    """A started run `r` and a child of it, `r.a`."""
    made = SimulatedRuns()
    made.open("r", "", RunBudget())
    made.open("r.a", "r", RunBudget())
    return made


def hold(runs: SimulatedRuns, run_id: str, hold_id: str, label: CostLabel = UNSETTLED) -> None:
    made = RunHold(hold_id, (1, 30, 90), TTL_MS, label=label)
    assert runs.hold(run_id, made).verdict is RunVerdict.OK


def part(label: CostLabel, microusd: int, rounding: int = 0, tokens: int = 10) -> CostPart:
    calls = int(label.kind != run_pb2.RUN_COST_KIND_LOOK_UP)
    return CostPart(label, (calls, tokens, microusd), rounding)


def rows(runs: SimulatedRuns, run_id: str = "r") -> dict[tuple[str, CostLabel], CostPart]:
    return {(row.run_id, row.part.label): row.part for row in runs.cost(run_id).costs}


def test_costs_are_told_apart_by_run_and_by_label(runs: SimulatedRuns) -> None:
    hold(runs, "r", "a")
    runs.settle("r", "a", [part(ANSWER, 5), part(LOOK_UP, 2, tokens=0)])
    hold(runs, "r", "b")
    runs.settle("r", "b", [part(ANSWER, 7)])
    hold(runs, "r.a", "c")
    runs.settle("r.a", "c", [part(ANSWER._replace(step="search"), 11)])
    assert rows(runs) == {
        ("r", ANSWER): CostPart(ANSWER, (2, 20, 12)),
        ("r", LOOK_UP): CostPart(LOOK_UP, (0, 0, 2)),
        ("r.a", ANSWER._replace(step="search")): part(ANSWER._replace(step="search"), 11),
    }
    assert list(rows(runs, "r.a")) == [("r.a", ANSWER._replace(step="search"))]


def test_many_roundings_add_up_to_one(runs: SimulatedRuns) -> None:
    """Three calls of 0.4 micro-dollars are 1.2: rounded up, 2 less 0.8."""
    for number in range(3):
        runs.settle("r", f"h{number}", [part(ANSWER, 1, rounding=600_000)])
    assert rows(runs)["r", ANSWER] == CostPart(ANSWER, (3, 30, 2), 800_000)
    assert dict(runs.read("r").runs)["r"].spent == (3, 30, 3), "a limit counts each rounded up"


def test_what_nobody_settles_counts_as_unsettled_until_somebody_does(runs: SimulatedRuns) -> None:
    label = UNSETTLED._replace(model="m", step="plan")
    hold(runs, "r", "a", label)
    assert rows(runs) == {}
    runs.now_ms += TTL_MS
    assert rows(runs) == {("r", label): CostPart(label, (1, 30, 90))}
    assert runs.settle("r", "a", [part(ANSWER, 5, 3)]).verdict is RunVerdict.SETTLED
    assert rows(runs) == {("r", ANSWER): part(ANSWER, 5, 3)}


def test_a_settlement_that_is_repeated_counts_once_and_another_replaces_it(
    runs: SimulatedRuns,
) -> None:
    hold(runs, "r", "a")
    for _ in range(2):
        runs.settle("r", "a", [part(ANSWER, 5, 999_999), part(LOOK_UP, 1, tokens=0)])
    assert rows(runs)["r", ANSWER] == part(ANSWER, 5, 999_999)
    runs.settle("r", "a", [part(ANSWER, 6, 1)])
    assert rows(runs) == {("r", ANSWER): part(ANSWER, 6, 1)}
    runs.settle("r", "a", [])
    assert rows(runs) == {}


def test_beyond_a_bound_steps_and_models_are_counted_together(runs: SimulatedRuns) -> None:
    for number in range(4_100):
        label = ANSWER._replace(step=f"step {number}")
        runs.settle("r", f"h{number}", [part(label, 1)])
    kept = rows(runs)
    other = ANSWER._replace(model="(other)", step="(other)")
    assert len(kept) == 4_097
    assert kept["r", other] == CostPart(other, (4, 40, 4))
    runs.settle("r", "h4099", [])  # taken back from where it was counted
    assert rows(runs)["r", other].amounts == (3, 30, 3)


@pytest.mark.parametrize("seed", range(5))
def test_random_histories_come_to_the_last_settlements(runs: SimulatedRuns, seed: int) -> None:
    rng, last = random.Random(seed), dict[str, tuple[str, list[CostPart]]]()
    labels = [ANSWER, LOOK_UP, ANSWER._replace(step="x"), ANSWER._replace(is_estimated=True)]
    for _ in range(300):
        hold_id = f"h{rng.randrange(60)}"
        run_id = last[hold_id][0] if hold_id in last else rng.choice(("r", "r.a"))
        parts = [
            CostPart(label, (1, rng.randrange(50), rng.randrange(1, 90)), rng.randrange(PICOUSD))
            for label in rng.sample(labels, rng.randrange(3))
        ]
        runs.settle(run_id, hold_id, parts)
        last[hold_id] = run_id, parts
    expected = Counter[tuple[str, CostLabel]]()
    for run_id, parts in last.values():
        for each in parts:
            expected[run_id, each.label] += each.amounts[2] * PICOUSD - each.rounding_picousd
    assert {key: _picousd(each) for key, each in rows(runs).items()} == expected
    assert all(0 <= each.rounding_picousd < PICOUSD for each in rows(runs).values())


def _picousd(part: CostPart) -> int:
    return part.amounts[2] * PICOUSD - part.rounding_picousd


async def test_the_real_store_says_the_same(limiters: Limiters) -> None:
    store = RunStore(limiters.make().store)
    key = RunKey("acme", "k1", "r")
    await store.open(key, "", RunBudget())
    for number in range(3):
        await store.hold(key, RunHold(f"h{number}", (1, 30, 90), TTL_MS))
        await store.settle(key, f"h{number}", [part(ANSWER, 1, rounding=600_000)])
    reply = await store.cost(key)
    assert reply.costs == (CostRow("r", CostPart(ANSWER, (3, 30, 2), 800_000)),)
    assert [run_id for run_id, _ in reply.runs] == ["r"]
    stranger = await store.cost(RunKey("acme", "k2", "r"))
    assert (stranger.verdict, stranger.costs) == (RunVerdict.FOREIGN, ())


@pytest.mark.parametrize(
    ("costs", "field"),
    [
        ([run_pb2.RunCost()], "costs[0].kind"),
        ([run_pb2.RunCost(kind=1), run_pb2.RunCost(kind=1, rounding_picousd=PICOUSD)], "costs[1]"),
        ([run_pb2.RunCost(kind=1, step="x" * 129)], "costs[0].step"),
        ([run_pb2.RunCost(kind=1, amount=run_pb2.RunAmount(calls=-1))], "costs[0].amount.calls"),
        ([run_pb2.RunCost(kind=1)] * 17, "costs"),
    ],
)
async def test_a_bad_cost_is_refused_by_its_field(
    limiters: Limiters, costs: list[run_pb2.RunCost], field: str
) -> None:
    settle = pb.SettleRunRequest(run_id="r", hold_id="h", costs=costs)
    with pytest.raises(Fault) as refused:
        await limiters.make().service.SettleRun(settle, CALLER)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert refused.value.field.startswith(field)
