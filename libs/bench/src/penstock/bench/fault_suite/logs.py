"""The logs of the fault suite's campaigns; the sums over their lines are its figures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from penstock.bench.harness import json_lines

FOLDER = Path("docs/benchmarks")
SIMULATION = FOLDER / "simulation.jsonl"
FUZZ = FOLDER / "fuzz.jsonl"
MUTANTS = FOLDER / "mutants.jsonl"
OVERLOAD = FOLDER / "overload.jsonl"
SOAK = FOLDER / "soak.jsonl"


def append(log: Path, row: Mapping[str, object]) -> None:
    """Add a line, with the time."""
    json_lines.append(log, {**row, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"})
