"""Faults on the whole path, in virtual time: what each of them must not do is an invariant of the
simulation.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.fault_suite.fuzz import fuzz
from penstock.bench.harness.json_lines import rows
from penstock.simulation.fault_plan import FaultKind
from penstock.simulation.runs import play
from penstock.simulation.system import SERVICES

SEEDS = range(5)


def play_with(seed: int, rates: dict[FaultKind, float]) -> None:
    outcome = play(seed, rates=rates, kills=())
    assert not outcome.violations, f"seed {seed}: {outcome.violations}"
    assert outcome.answered


@pytest.mark.fault(12)
@pytest.mark.parametrize("seed", SEEDS)
def test_callers_who_leave_cost_nobody_else_an_answer(seed: int) -> None:
    play_with(seed, {"cancel": 0.6, "delay": 0.05})


@pytest.mark.fault(20)
@pytest.mark.parametrize("seed", SEEDS)
def test_failing_instances_are_neither_charged_twice_nor_kept(seed: int) -> None:
    play_with(seed, {"fail": 0.5})


@pytest.mark.fault(15)
@pytest.mark.parametrize("service", SERVICES)
def test_each_service_may_be_killed_and_started_again(service: str) -> None:
    outcome = play(3, rates={}, kills=(service, service))
    assert not outcome.violations, outcome.violations
    assert outcome.answered


@pytest.mark.fault(2)
def test_random_messages_and_bytes_are_refused_by_every_rpc(tmp_path: Path) -> None:
    log = tmp_path / "fuzz.jsonl"
    fuzz(0, 1_000, log)
    found = {row["target"]: row["findings"] for row in rows(log) if row["found"]}
    assert not found
    assert len(rows(log)) > 60
