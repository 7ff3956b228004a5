"""The campaign of fresh clones: its log, its sums, and the conditions that it brings about."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from penstock.bench.fresh.benchmark import PLAIN, counted, demo_times
from penstock.bench.fresh.campaign import what_failed
from penstock.bench.fresh.conditions import (
    CONDITIONS,
    TIMED_DEMOS,
    Condition,
    RunningCommand,
    stalling_store,
    syncing,
)
from penstock.bench.fresh.log import Command, Run, last_demos, latest
from penstock.bench.harness.json_lines import append, records

COUNT_CORES = "import os; print(len(os.sched_getaffinity(0)))"
WAIT_FOR_A_LINE = "import sys; sys.stdin.readline()"


def run_of(
    command: Command, condition: str, *, ok: bool = True, seconds: float = 100.0, **more: float
) -> Run:
    fields = {"commit": "abc", "python": "3.11.7", "date": "2026-11-28"}
    return Run(command, condition, ok, seconds, seconds / 4, **fields, **more)  # type: ignore[arg-type]


def test_what_is_appended_is_read_and_the_last_run_of_a_condition_counts(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "fresh.jsonl"
    assert records(log, Run) == []
    first, second = run_of("demo", "one core", ok=False), run_of("demo", "one core")
    tests = run_of("test", "one core")
    for run in (first, second, tests):
        append(log, asdict(run))
    assert records(log, Run) == [first, second, tests]
    assert latest(records(log, Run)) == [second, tests]


def test_a_line_that_is_not_a_run_is_refused_with_its_file(tmp_path: Path) -> None:
    log = tmp_path / "fresh.jsonl"
    log.write_text('{"command": "demo"}\n')
    with pytest.raises(ValueError, match=r"fresh\.jsonl: a line is not a run"):
        records(log, Run)


def test_a_run_that_failed_counts_neither_as_ok_nor_for_the_times() -> None:
    seconds = (120.0, 140.0, 130.0)
    demos = [run_of("demo", name, seconds=each) for name, each in zip(PLAIN, seconds, strict=True)]
    slow = run_of("demo", "one core", seconds=900.0, torch_imports=1)
    broken = run_of("test", PLAIN[0], ok=False)
    download = run_of("download", "", megabytes=410.5)
    runs = [*demos, slow, broken, download]
    assert counted(runs) == {
        "demo_ok": 4,
        "test_ok": 0,
        "torch_imported": 1,
        "download_mb": 410.5,
    }
    failed = run_of("demo", PLAIN[0], ok=False, seconds=1.0)
    timed = last_demos([*runs, failed], PLAIN, TIMED_DEMOS)
    assert demo_times(timed) == {"first_demo_s": 130.0, "demo_s": 32.5}


def test_the_last_demos_of_each_plain_condition_are_timed() -> None:
    runs = [run_of("demo", name, seconds=each) for each in (1.0, 2.0, 3.0) for name in PLAIN]
    timed = last_demos([*runs, run_of("demo", "one core")], PLAIN, TIMED_DEMOS)
    assert sorted(run.seconds for run in timed) == [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]


def test_without_a_log_nothing_is_ok_and_nothing_took_any_time() -> None:
    assert counted([]) == {"demo_ok": 0, "test_ok": 0, "torch_imported": 0}
    assert demo_times([]) == {}


def test_there_are_six_conditions_for_the_demo_and_four_for_the_tests() -> None:
    assert len(CONDITIONS) == 6
    assert sum(condition.tested for condition in CONDITIONS) == 4


def test_a_command_may_be_kept_to_one_core() -> None:
    command = Condition("one core", cores=1).command(sys.executable, "-c", COUNT_CORES)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
    assert Condition("all cores").command("make", "demo") == ["make", "demo"]


def test_a_disturbance_ends_with_its_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAIT_FOR_A_LINE]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        running = RunningCommand(child.pid, tmp_path)
        with syncing(running), stalling_store(running):
            child.communicate(b"end\n")
        assert child.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_its_errors_and_its_last_lines() -> None:
    output = [*(f"line {number}" for number in range(40)), "E   AssertionError", "and more"]
    output += [f"SKIPPED {number}" for number in range(20)]
    kept = what_failed(output).splitlines()
    assert kept[0] == "E   AssertionError"
    assert kept[-1] == "SKIPPED 19"
    assert "line 0" not in kept
