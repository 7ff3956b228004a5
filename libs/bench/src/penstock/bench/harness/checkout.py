"""The checkout that a benchmark runs from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_of(folder: Path) -> str:
    """The commit that is checked out in a folder, shortened; empty where git does not say."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return told.stdout.strip()
