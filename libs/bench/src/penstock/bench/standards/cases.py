"""Numbered cases: tests that are marked with the number of a public report or of a fault.

Run as a plugin of pytest, this module writes what became of each case; see `run_cases`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MARK = "standard_case"
OUTPUT, OF_MARK = "CASES_OUTPUT", "CASES_MARK"
"""The variables that name the file to write, and the marker."""


@dataclass(frozen=True)
class Cases:
    """Cases by outcome of their tests.

    Attributes:
        tests: of all cases.
        passed: numbers of cases of which a test passed and none failed.
        failed: numbers of cases of which a test failed.
        skipped: numbers of cases none of whose tests could be run here.
    """

    tests: int
    passed: tuple[int, ...]
    failed: tuple[int, ...]
    skipped: tuple[int, ...]


class Outcomes:
    """Notes for each case what became of its tests."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = {}
        self._outcomes: dict[int, set[str]] = {}
        self._tests: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test belongs to which cases."""
        for item in items:
            marks = item.iter_markers(os.environ[OF_MARK])
            self._numbers[item.nodeid] = [number for mark in marks for number in mark.args]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome; a failed fixture fails its test."""
        if report.when == "call" or report.outcome != "passed":
            self._tests.add(report.nodeid)
            for number in self._numbers.get(report.nodeid, ()):
                self._outcomes.setdefault(number, set()).add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write what was noted."""
        outcomes = {number: sorted(found) for number, found in sorted(self._outcomes.items())}
        Path(os.environ[OUTPUT]).write_text(
            json.dumps({"tests": len(self._tests), "outcomes": outcomes})
        )


def pytest_configure(config: pytest.Config) -> None:
    """Register the notes; called by pytest."""
    config.pluginmanager.register(Outcomes())


def run_cases(tests: Path = Path("tests"), mark: str = MARK) -> Cases:
    """Run every test of a case in a process of its own, one after the other.

    Raises:
        RuntimeError: pytest could not run them at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", __name__, "-m", mark, str(tests)]
        environment = {**os.environ, OUTPUT: str(output), OF_MARK: mark}
        subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if not output.exists():
            raise RuntimeError(f"pytest could not run the tests of {tests}")
        return cases_of(json.loads(output.read_text()))


def cases_of(noted: Mapping[str, Any]) -> Cases:
    """The cases by outcome."""
    outcomes = {int(number): set(found) for number, found in noted["outcomes"].items()}
    failed = {number for number, found in outcomes.items() if "failed" in found}
    passed = {number for number, found in outcomes.items() if "passed" in found} - failed
    skipped = set(outcomes) - failed - passed
    return Cases(noted["tests"], *(tuple(sorted(one)) for one in (passed, failed, skipped)))
