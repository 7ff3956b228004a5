"""What is measured of demand. A value only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Demand of one interval: when it began (Unix seconds), work that arrived, work that waited at
    its end.
    """

    start_s: float
    work: float
    backlog: float = 0.0
