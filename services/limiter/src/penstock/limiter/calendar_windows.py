"""Calendar windows: the hour, day, week or month of a time zone in which a moment lies.

Each window begins where the one before ends, whatever the clocks do. A day of 23 hours is a day.
Where clocks change by part of an hour, the hour that the change cuts short is an hour. Pure
functions of a given time.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from penstock.service.purity import pure

Unit = Literal["second", "minute", "hour", "day", "week", "month"]
UNIT_SECONDS: dict[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
}
"""Length of each unit; of a month, where it is no calendar month but 30 days."""


class CalendarWindow(NamedTuple):
    """A window and the end of the next one, in Unix milliseconds; the ends do not belong to it."""

    start_ms: int
    end_ms: int
    next_end_ms: int


@pure
def calendar_window(unit: Unit, time_zone: str, now_s: float) -> CalendarWindow:
    """The window of a time zone in which `now_s` (Unix seconds) lies."""
    start_s, end_s = _bounds_s(unit, time_zone, int(now_s))
    _, next_end_s = _bounds_s(unit, time_zone, end_s)
    return CalendarWindow(start_s * 1000, end_s * 1000, next_end_s * 1000)


@lru_cache(maxsize=1024)
def _bounds_s(unit: Unit, time_zone: str, now_s: int) -> tuple[int, int]:
    if unit in ("second", "minute", "hour"):
        return _even_bounds_s(UNIT_SECONDS[unit], time_zone, now_s)
    midnight = datetime.fromtimestamp(now_s, ZoneInfo(time_zone)).replace(
        hour=0, minute=0, second=0, microsecond=0, fold=0
    )
    start, end = _day_bounds(unit, midnight)
    return int(start.timestamp()), int(end.timestamp())


def _day_bounds(unit: Unit, midnight: datetime) -> tuple[datetime, datetime]:
    """First midnight of the day, week or month of `midnight`, and of the next one."""
    if unit == "day":
        return midnight, midnight + timedelta(days=1)
    if unit == "week":
        start = midnight - timedelta(days=midnight.weekday())
        return start, start + timedelta(days=7)
    start = midnight.replace(day=1)
    return start, (start + timedelta(days=32)).replace(day=1)


def _even_bounds_s(length_s: int, time_zone: str, now_s: int) -> tuple[int, int]:
    """Bounds of windows of equal length, which a change of the clocks may cut."""
    phase_s = _phase_s(length_s, time_zone, now_s)
    start_s = (now_s + phase_s) // length_s * length_s - phase_s
    end_s = start_s + length_s

    def is_changed(at_s: int) -> bool:
        return _phase_s(length_s, time_zone, at_s) != phase_s

    if is_changed(start_s):
        start_s += bisect_left(range(start_s, now_s), True, key=lambda at_s: not is_changed(at_s))
    if is_changed(end_s - 1):
        end_s = now_s + bisect_left(range(now_s, end_s), True, key=is_changed)
    return start_s, end_s


def _phase_s(length_s: int, time_zone: str, at_s: int) -> int:
    """Seconds by which the zone's windows begin before those of UTC."""
    offset = datetime.fromtimestamp(at_s, ZoneInfo(time_zone)).utcoffset() or timedelta()
    return int(offset.total_seconds()) % length_s
