"""A pytest plugin: writes which numbers of `wire_case` were run, and the tests of each that failed.

The file is the one that the variable PENSTOCK_WIRE_CASES names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

MARKER = "wire_case"
PASSED = "passed"
_cases: dict[str, list[str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell each test's report the numbers that the test has."""
    for item in items:
        for marker in item.iter_markers(MARKER):
            item.user_properties.append((MARKER, str(marker.args[0])))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what came of a test. One that was skipped shows nothing, so it counts as failed."""
    for name, number in report.user_properties:
        if name == MARKER:
            failed = _cases.setdefault(str(number), [])
            if report.outcome != PASSED:
                failed.append(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write the file."""
    Path(os.environ["PENSTOCK_WIRE_CASES"]).write_text(json.dumps(_cases))
