"""The log of campaigns: one JSON object a line, a suite each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

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


def append(path: Path, run: SuiteRun) -> None:
    """Add a suite's run to the log, which is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run), ensure_ascii=False) + "\n")


def latest(path: Path) -> list[SuiteRun]:
    """The last run of each suite; none where there is no log.

    Raises:
        ValueError: a line is not a run.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        runs = [SuiteRun(**json.loads(line)) for line in lines if line.strip()]
    except TypeError as error:
        raise ValueError(f"{path}: a line is not a suite's run ({error})") from None
    return list({run.suite: run for run in runs}.values())


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
