"""Logs of campaigns: a JSON object a line, appended and never changed.

A figure is a sum over a log's lines, so a campaign can be stopped and gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def append(path: Path, row: Mapping[str, object]) -> None:
    """Add a line to a log, which is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, the oldest first; none where there is no log."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def records(path: Path, kind: Callable[..., T]) -> list[T]:
    """The lines of a log as runs of a kind, made of their fields.

    Raises:
        ValueError: a line has other fields.
    """
    try:
        return [kind(**row) for row in rows(path)]
    except TypeError as error:
        raise ValueError(f"{path}: a line is not a run ({error})") from None
