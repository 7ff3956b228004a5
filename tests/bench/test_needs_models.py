"""A benchmark that uses the default models says so, and is refused in a line where they are not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import penstock.bench
import pytest
from penstock.bench.harness.registry import BENCHMARKS

FOLDER = Path(penstock.bench.__path__[0])
USES = ("home_folder(", "whole_stack(", "run_marked(")
"""What reads the models, starts instances of them, or runs tests that do."""


def uses_models(folder: Path) -> bool:
    """Whether a benchmark does; a campaign beside it is a command of its own."""
    paths = (path for path in folder.rglob("*.py") if path.stem != "stack_campaign")
    sources = (path.read_text() for path in paths)
    return any(use in source for source in sources for use in USES)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_who_uses_the_models_says_so(name: str) -> None:
    package = name.replace("-", "_")
    module = importlib.import_module(f"penstock.bench.{package}.benchmark")
    if uses_models(FOLDER / package):
        assert getattr(module, "NEEDS_MODELS", False), f"{name} needs NEEDS_MODELS = True"


def test_without_them_one_line_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock.bench", "runs", "--quick"]
    environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"penstock.bench: model all-MiniLM-L6-v2 is not in {tmp_path}; run `make model`"
    ]


def test_the_campaign_of_stacks_says_so_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock.bench.telemetry.stack_campaign"]
    environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("run `make model`")
