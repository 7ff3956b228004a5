"""The checkout that a benchmark runs from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_of(folder: Path) -> str:
    """The commit that is checked out in a folder, shortened; empty where git does not say."""
    return _told(folder, "rev-parse", "--short", "HEAD")


def has_changes(folder: Path) -> bool:
    """Whether a file outside `docs` differs from the commit; pages are written while others run."""
    return bool(_told(folder, "status", "--porcelain", "--", ".", ":!docs"))


def _told(folder: Path, *arguments: str) -> str:
    told = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()
