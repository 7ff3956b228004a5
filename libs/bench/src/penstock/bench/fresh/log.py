"""A line of the log that each run in a fresh clone appends to."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
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
        why: the errors and the last lines of its output where it failed.
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


def last_demos(runs: Iterable[Run], conditions: Container[str], each: int) -> list[Run]:
    """The last demos that succeeded under each of these conditions, so many of each."""
    found: dict[str, deque[Run]] = {}
    for run in runs:
        if run.command == "demo" and run.ok and run.condition in conditions:
            found.setdefault(run.condition, deque(maxlen=each)).append(run)
    return [run for kept in found.values() for run in kept]


def latest(runs: Iterable[Run]) -> list[Run]:
    """The last run of each command under each condition."""
    return list({(run.command, run.condition): run for run in runs}.values())
