"""A decision as it is kept and shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """One decision and what it rests on. Field names are keys in the store.

    Args:
        made_s: when, in Unix seconds.
        current: instances asked for before.
        wanted: instances there should be, of which `on_demand` are not on spot.
        forecast: work of one interval at the quantile `level`.
        horizon_s: how far ahead was forecast.
        floor: instances that present demand alone needs.
        reason: which rule decided, for people.
    """

    made_s: float
    pool: str
    current: int
    wanted: int
    on_demand: int
    forecast: float
    level: float
    horizon_s: float
    floor: int
    reason: str
