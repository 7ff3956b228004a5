"""Tests that carry a mark with arguments, and what became of each argument's tests.

Run as a plugin of pytest, this module writes what became of them; see `run_marked`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK, OUTPUT = "MARKED_TESTS_MARK", "MARKED_TESTS_OUTPUT"
"""The variables that name the mark, and the file to write."""


@dataclass(frozen=True)
class Marked:
    """The arguments of a mark by outcome of their tests.

    Attributes:
        tests: of all arguments.
        passed: arguments of which a test passed and none failed.
        failed: arguments of which a test failed.
        skipped: arguments none of whose tests could be run here.
    """

    tests: int
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]


class Outcomes:
    """Notes for each argument what became of its tests."""

    def __init__(self) -> None:
        self._arguments: dict[str, list[str]] = {}
        self._outcomes: dict[str, set[str]] = {}
        self._tests: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test belongs to which arguments."""
        for item in items:
            marks = item.iter_markers(os.environ[MARK])
            self._arguments[item.nodeid] = [str(each) for mark in marks for each in mark.args]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome; a failed fixture fails its test."""
        if report.when == "call" or report.outcome != "passed":
            self._tests.add(report.nodeid)
            for argument in self._arguments.get(report.nodeid, ()):
                self._outcomes.setdefault(argument, set()).add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write what was noted."""
        outcomes = {argument: sorted(found) for argument, found in sorted(self._outcomes.items())}
        Path(os.environ[OUTPUT]).write_text(
            json.dumps({"tests": len(self._tests), "outcomes": outcomes})
        )


def pytest_configure(config: pytest.Config) -> None:
    """Register the notes; called by pytest."""
    config.pluginmanager.register(Outcomes())


def run_marked(mark: str, tests: Path = Path("tests")) -> Marked:
    """Run every test with a mark in a process of its own, one after the other.

    Raises:
        RuntimeError: pytest could not run them at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", __name__, "-m", mark, str(tests)]
        environment = {**os.environ, MARK: mark, OUTPUT: str(output)}
        subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if not output.exists():
            raise RuntimeError(f"pytest could not run the tests of {tests}")
        return _by_outcome(json.loads(output.read_text()))


def _by_outcome(noted: dict[str, dict[str, list[str]]]) -> Marked:
    outcomes = {argument: set(found) for argument, found in noted["outcomes"].items()}
    failed = {argument for argument, found in outcomes.items() if "failed" in found}
    passed = {argument for argument, found in outcomes.items() if "passed" in found} - failed
    skipped = set(outcomes) - failed - passed
    tests: int = noted["tests"]  # type: ignore[assignment]  # the one that is no table
    return Marked(tests, *(tuple(sorted(each)) for each in (passed, failed, skipped)))
