"""What identifies one stream of numbers. A value only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """One stream of numbers: a metric of a service with its labels."""

    service: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()
