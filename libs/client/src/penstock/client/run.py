"""One agent run as a caller says it: plain values, checked when they are made."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Literal

from penstock.client.errors import bad
from penstock.rpc.call import PRIORITIES

Priority = Literal["low", "normal", "high", "critical"]


@dataclass(frozen=True)
class Run:
    """One agent run: its calls share an id, and with it a trace, a budget and a cancel.

    `timeout_s` is for each call.

    Raises:
        BadRequest: `priority` is none of the four, or `timeout_s` not a number of seconds above 0.
    """

    id: str
    step: str = ""
    priority: Priority = "normal"
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise bad("priority", f"{self.priority!r} is none of {', '.join(PRIORITIES)}")
        if not isinstance(self.timeout_s, int | float) or not self.timeout_s > 0:
            raise bad("timeout_s", f"{self.timeout_s!r} is not a number of seconds above 0")

    def at(self, step: str) -> Run:
        """The same run at another step."""
        return replace(self, step=step)


def new_run(step: str = "", priority: Priority = "normal", timeout_s: float = 30.0) -> Run:
    """A run with an id of its own."""
    return Run(uuid.uuid4().hex, step, priority, timeout_s)
