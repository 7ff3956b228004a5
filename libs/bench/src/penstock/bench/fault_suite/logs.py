"""The logs of campaigns: a line of JSON for each part that was tried, appended and never changed.

A figure is the sum over all lines of a log, so a campaign can be stopped and gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path("docs/benchmarks")
SIMULATION = FOLDER / "simulation.jsonl"
FUZZ = FOLDER / "fuzz.jsonl"
MUTANTS = FOLDER / "mutants.jsonl"
OVERLOAD = FOLDER / "overload.jsonl"
SOAK = FOLDER / "soak.jsonl"


def append(log: Path, row: Mapping[str, object]) -> None:
    """Append a line, with the time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    line = {**row, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"}
    with log.open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def rows(log: Path) -> list[dict[str, Any]]:
    """The lines of a log, the oldest first; none where there is no log."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines()]
