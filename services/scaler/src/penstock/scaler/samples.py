"""A sample of demand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Demand of one interval.

    Args:
        start_s: when the interval began, in Unix seconds.
        work: work that arrived in it.
        backlog: work that waited at its end.
    """

    start_s: float
    work: float
    backlog: float = 0.0
