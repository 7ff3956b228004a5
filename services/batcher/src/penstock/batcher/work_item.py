"""One request as ordering and grouping see it."""

from __future__ import annotations

from typing import NamedTuple

LOW, NORMAL, HIGH, CRITICAL = 1, 2, 3, 4
"""The priority classes, numbered as in the contract."""


class WorkItem(NamedTuple):
    """A request without its caller and its content.

    `tokens` is its size and `rows` the number of its texts. `arrived_s` and `deadline_s`, the
    latest moment to begin it, are on the monotonic clock. A streamed item shares no batch and is
    counted apart from those that are answered whole.

    A named tuple, because one is made for every request and a frozen dataclass takes four times as
    long to make.
    """

    id: int
    priority: int
    tenant: str
    model: str
    rows: int
    tokens: int
    arrived_s: float
    deadline_s: float
    is_streamed: bool = False

    def shares_limit_with(self, other: WorkItem) -> bool:
        """Whether both count towards the same queue limit."""
        return self.model == other.model and self.is_streamed == other.is_streamed

    def can_begin_in_time(self, now: float, wait_ms: float) -> bool:
        """Whether the item would start by its `deadline_s` after waiting `wait_ms`."""
        return wait_ms <= (self.deadline_s - now) * 1e3
