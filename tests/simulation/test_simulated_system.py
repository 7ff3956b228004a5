"""The services in one virtual-time loop with faults at every await; `python -m penstock.simulation
--replay SEED` shows what a seed does, and with how few faults it still fails.
"""

from __future__ import annotations

import pytest
from penstock.simulation.fault_plan import FaultPlan
from penstock.simulation.runs import play

SEEDS = 200
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_no_invariant_is_violated_whatever_fails(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        outcome = play(seed)
        assert not outcome.violations, f"seed {seed}: {outcome.violations}"
        assert outcome.answered > 0, f"seed {seed} answers nothing"


def test_faults_happen_and_the_same_seed_has_the_same_ones() -> None:
    first, again = play(7), play(7)
    assert len(first.faults) > 5
    assert (first.digest, first.faults) == (again.digest, again.faults)


def test_without_faults_every_call_is_answered_or_refused_by_its_budget() -> None:
    outcome = play(7, frozenset())
    assert not outcome.faults
    assert outcome.answered > outcome.calls / 2


def test_leaving_a_fault_out_changes_none_of_the_others() -> None:
    every, some = FaultPlan(3, {"delay": 0.5}), FaultPlan(3, {"delay": 0.5}, frozenset({"a#4"}))
    for plan in (every, some):
        plan.is_active = True
    drawn = [every.draw("a", ("delay",)) for _ in range(8)]
    left = [some.draw("a", ("delay",)) for _ in range(8)]
    assert [one.latency_s for one in drawn] == [one.latency_s for one in left]
    assert left[4] == drawn[4]
    assert set(some.happened) <= {"a#4"}
