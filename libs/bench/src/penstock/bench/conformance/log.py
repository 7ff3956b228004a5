"""The log of campaigns: one JSON object a line, a suite each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bench.harness.json_lines import records

LOG = Path("docs/benchmarks/conformance.jsonl")
LISTED = "left out: "
"""Begins the reason of a case that is left out by the list, as the plugin writes it."""


@dataclass(frozen=True)
class SuiteRun:
    """How the cases of a suite went in one campaign.

    Attributes:
        suite: its name.
        began: when its campaign began, ISO 8601.
        commit: of the repository.
        run: cases that were run.
        failed: of these, those that failed; a case that was skipped without a listed reason and a
            suite that could not be run are counted here too.
        failures: their names.
        left_out: number of cases by the listed reason.
        from_checkout: whether the cases are of a client's own repository.
    """

    suite: str
    began: str
    commit: str
    run: int
    failed: int
    failures: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    from_checkout: bool = False


def latest(path: Path) -> list[SuiteRun]:
    """The last run of each suite; none where there is no log.

    Raises:
        ValueError: a line is not a run.
    """
    return list({run.suite: run for run in records(path, SuiteRun)}.values())


def campaign_figures(runs: Sequence[SuiteRun]) -> dict[str, int]:
    """The cases that need no checkout, and failures of all; none where nothing was run."""
    if not runs:
        return {}
    return {
        "conformance_run": sum(run.run for run in runs if not run.from_checkout),
        "conformance_checkouts_run": sum(run.run for run in runs if run.from_checkout),
        "conformance_left_out": sum(sum(run.left_out.values()) for run in runs),
        "conformance_failed": sum(run.failed for run in runs),
    }
