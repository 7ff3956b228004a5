"""An agent run as the caller gives it: plain values, checked when they are created."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Literal

from penstock.client.errors import bad_request
from penstock.rpc.call import PRIORITIES

Priority = Literal["low", "normal", "high", "critical"]
DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Run:
    """One agent run. Its calls share an id, and with it a trace, a budget and a cancellation.

    Attributes:
        id: the run's id; empty for calls that belong to none.
        step: name of the current step.
        priority: of each call.
        timeout_s: seconds for each call.

    Raises:
        BadRequest: `priority` is none of the four, or `timeout_s` is no number above 0.
    """

    id: str
    step: str = ""
    priority: Priority = "normal"
    timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise bad_request("priority", f"{self.priority!r} is none of {', '.join(PRIORITIES)}")
        if not isinstance(self.timeout_s, int | float) or not self.timeout_s > 0:
            raise bad_request("timeout_s", f"{self.timeout_s!r} is not a number of seconds above 0")

    def at(self, step: str) -> Run:
        """The same run at another step."""
        return replace(self, step=step)


NO_RUN = Run("")
"""Of calls that belong to no run."""


def new_run(
    step: str = "", priority: Priority = "normal", timeout_s: float = DEFAULT_TIMEOUT_S
) -> Run:
    """A run with an id of its own."""
    return Run(uuid.uuid4().hex, step, priority, timeout_s)
