"""Reads how the cases of a run of pytest went, from JUnit's XML. Pure but for the file."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from penstock.bench.conformance.log import LISTED


@dataclass(frozen=True)
class Cases:
    """How the cases went.

    Attributes:
        run: number of cases that were run.
        failures: names of those that failed, or were skipped without a listed reason.
        left_out: number of cases by the listed reason.
    """

    run: int
    failures: tuple[str, ...]
    left_out: dict[str, int]


def read_report(path: Path) -> Cases:
    """The cases of a report; one failure where there is no report, since nothing was run."""
    if not path.exists():
        return Cases(0, ("the suite ended without a report",), {})
    return cases_of(path.read_text(encoding="utf-8"))


def cases_of(xml: str) -> Cases:
    """The cases of a report's text."""
    run, failures = 0, []
    left_out: collections.Counter[str] = collections.Counter()
    for case in ElementTree.fromstring(xml).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.get("message") or ""
            if reason.startswith(LISTED):
                left_out[reason.removeprefix(LISTED)] += 1
            else:
                failures.append(f"{name}: skipped without a listed reason: {reason}")
            continue
        run += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(name)
    return Cases(run, tuple(failures), dict(left_out))
