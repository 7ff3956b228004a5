"""All benchmarks one after the other: what is run, and what is said of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from penstock.bench.harness.run_all import Ran, run_all

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
