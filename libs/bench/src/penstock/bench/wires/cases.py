"""The tests of reported faults: those that carry the marker `wire_case`, by their numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from penstock.bench.reading.sources.tree import repository

PLUGIN = "penstock.bench.wires.case_report"
REPORT_VARIABLE = "PENSTOCK_WIRE_CASES"


def figures(failures: list[str]) -> dict[str, int]:
    """How many of the cases have tests, and of how many a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.json"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "wire_case", "-p", PLUGIN]
        command += ["-p", "no:cacheprovider", str(repository() / "tests")]
        environment = {**os.environ, REPORT_VARIABLE: str(path)}
        subprocess.run(
            command, cwd=repository(), env=environment, check=False, stdout=subprocess.DEVNULL
        )
        cases: dict[str, list[str]] = json.loads(path.read_text())
    failed = {number: tests for number, tests in cases.items() if tests}
    failures += [f"case {number}: {test}" for number, tests in failed.items() for test in tests]
    return {"cases": len(cases), "cases_failed": len(failed)}
