"""All benchmarks one after the other: what is run, and what is said of it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.bench.harness.registry import BENCHMARKS
from penstock.bench.harness.run_all import QUICK_PARTS, Ran, arguments_of, run_all

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_one_that_fails_does_not_end_the_others_and_is_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run_all([], ["no-such-benchmark", "list"]) == 1
    said = capfd.readouterr()
    assert said.out.splitlines()[-1] == "failed: no-such-benchmark"
    assert "== list (2 of 2)" in said.out
    assert "no-such-benchmark FAILED with status 2" in said.err
    assert "list ran in" in said.err


def test_a_run_is_told_with_its_times() -> None:
    assert str(Ran("hop", 61.4, 32.6, 0)) == "hop ran in 61 s (33 s of processor time)"


def test_a_quick_run_of_all_takes_a_part_of_benchmarks_with_many() -> None:
    assert arguments_of("overhead", ["--quick"]) == ["overhead", "--quick", "--part", "calls"]
    assert arguments_of("overhead", ["--data", "d"]) == ["overhead", "--data", "d"]
    assert arguments_of("hop", ["--quick"]) == ["hop", "--quick"]


@pytest.mark.parametrize("name", QUICK_PARTS)
def test_a_part_that_stands_for_a_benchmark_is_one_of_its_parts(name: str) -> None:
    assert name in BENCHMARKS
    module = importlib.import_module(f"penstock.bench.{name.replace('-', '_')}.benchmark")
    assert QUICK_PARTS[name] in module.PARTS


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ((), "all --quick --json"),
        (("DATA=some folder",), 'all --data "some folder" --write docs/benchmarks'),
    ],
)
def test_without_data_benchmarks_run_shortly_and_nothing_is_written(
    variables: tuple[str, ...], options: str
) -> None:
    command = ["make", "-n", "bench", *variables]
    shown = subprocess.run(
        command, cwd=MAKEFILE.parent, capture_output=True, text=True, check=True
    ).stdout
    assert f"-m penstock.bench {options}" in shown, sys.executable
