"""The tests of reported faults: those that carry the marker `wire_case`, by their numbers."""

from __future__ import annotations

from pathlib import Path

from penstock.bench.harness.marked_tests import run_marked
from penstock.bench.reading.sources.tree import repository

MARK = "wire_case"
TESTS, QUICK_TESTS = Path("tests"), Path("tests/router/wires")


def figures(failures: list[str], *, quick: bool = False) -> dict[str, int]:
    """How many of the cases have tests, and of how many a test fails or none can be run."""
    found = run_marked(MARK, repository() / (QUICK_TESTS if quick else TESTS))
    failed = (*found.failed, *found.skipped)
    failures += [f"case {number}" for number in failed]
    return {"cases": len(found.passed) + len(failed), "cases_failed": len(failed)}
