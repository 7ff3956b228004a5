"""A pytest plugin: leaves out the cases that `leave_out.toml` lists for a suite, with its reasons.

Also for the packages' own tests, which know nothing of it. A pattern that fits no case that was
collected is an error, so that the list does not outlive what it is about.
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from pathlib import Path

import pytest

LISTED = "left out: "
"""Begins the reason of a listed case; other skips have no listed reason."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the listed cases.

    Raises:
        UsageError: a pattern fits nothing, though the whole suite was collected.
    """
    text = Path(__file__).with_name("leave_out.toml").read_text(encoding="utf-8")
    patterns: dict[str, str] = tomllib.loads(text).get(os.environ.get("CONFORMANCE_SUITE", ""), {})
    unused = set(patterns)
    for item in items:
        name = item.nodeid.partition("[")[0]
        fitting = [each for each in patterns if fnmatch.fnmatch(item.nodeid, each)]
        fitting += [each for each in patterns if fnmatch.fnmatch(name, each)]
        unused -= set(fitting)
        if fitting:
            item.add_marker(pytest.mark.skip(reason=LISTED + patterns[fitting[0]]))
    if unused:
        raise pytest.UsageError(f"leave_out.toml: no case fits {sorted(unused)}")
