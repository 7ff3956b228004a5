"""The log of a campaign: one JSON object a line, appended by each run in a fresh clone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Command = Literal["demo", "test", "download"]


@dataclass(frozen=True)
class Run:
    """One documented command in one fresh clone.

    Attributes:
        command: `demo` or `test`; `download`: what the demo's packages and weights weigh.
        condition: the name of the condition that it ran under; empty for `download`.
        ok: whether it succeeded, for the demo without a failed request.
        seconds: from typing it to its end, with a warm package cache.
        command_s: of these, after installation and the making of the models.
        torch_imports: processes that imported torch or transformers.
        megabytes: downloaded, for `download`.
        commit: of the clone.
        python: version.
        date: day, ISO 8601.
        why: the last lines of its output where it failed.
    """

    command: Command
    condition: str
    ok: bool
    seconds: float
    command_s: float
    commit: str
    python: str
    date: str
    torch_imports: int = 0
    megabytes: float = 0.0
    why: str = ""


def append(path: Path, run: Run) -> None:
    """Add a run to the log, which is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def read(path: Path) -> list[Run]:
    """The runs in their order; none where there is no log.

    Raises:
        ValueError: a line is not a run.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Run(**json.loads(line)) for line in lines if line.strip()]
    except TypeError as error:
        raise ValueError(f"{path}: a line is not a run ({error})") from None


def latest(runs: Iterable[Run]) -> list[Run]:
    """The last run of each command under each condition."""
    return list({(run.command, run.condition): run for run in runs}.values())
