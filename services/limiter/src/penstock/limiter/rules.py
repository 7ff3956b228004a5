"""Rules of the file, and the counters that a call's path makes of them.

Plain: windows are computed from a given time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from penstock.service.settings import Section
from pydantic import Field, field_validator, model_validator

Level = Literal["organisation", "team", "user", "key", "model", "tag"]
Unit = Literal["second", "minute", "hour", "day", "week", "month"]
SECONDS: dict[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
}
DIMENSIONS = {"requests": 0, "tokens": 1, "microusd": 2}
ROLLING_STEPS = 60
"""A rolling window moves in so many steps; what was spent stays counted for up to one step longer.
"""


class RuleSection(Section):
    """One limit.

    A rate refills evenly (GCRA); a budget counts what a window has spent and holds.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    kind: Literal["rate", "budget"]
    level: Level = "organisation"
    match: str = "*"
    """Value of the level that the rule is for; `*` counts each value by itself."""
    organisation: str = "*"
    models: tuple[str, ...] = ()
    """Models whose calls are counted; none means all."""
    counts: Literal["requests", "tokens", "microusd"]
    limit: int = Field(ge=0)
    window: Unit = "minute"
    calendar: bool = False
    """Budgets only: the window begins with the calendar's second, minute … month in `time_zone`;
    otherwise it rolls.
    """
    time_zone: str = "UTC"
    burst: int | None = Field(None, ge=1)
    """Rates only: most that may come at once; absent means the limit of one window."""
    holds: Literal["strict", "expected"] = "strict"
    store_loss: Literal["open", "lease", "closed"] = "lease"
    shadow: bool = False
    adaptive: bool = True
    """Budgets only: keeps what more urgent work is forecast to need."""
    alerts: tuple[float, ...] = (0.8, 0.95)
    subjects: Mapping[str, int] = {}
    """Other limits for single values."""

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{name!r} is not a time zone such as Europe/Berlin") from None
        return name

    @model_validator(mode="after")
    def _fits(self) -> RuleSection:
        if self.kind == "rate" and (self.calendar or self.time_zone != "UTC"):
            raise ValueError("a rate has no calendar; use kind: budget")
        if self.kind == "rate" and self.limit == 0:
            raise ValueError("a rate of 0 lets nothing pass; use a budget of 0")
        if self.kind == "budget" and self.burst is not None:
            raise ValueError("a budget has no burst; use kind: rate")
        if list(self.alerts) != sorted(self.alerts) or any(
            not 0 < share <= 1 for share in self.alerts
        ):
            raise ValueError("alerts are shares above 0 and at most 1, rising")
        return self


class LimitsSection(Section):
    """`limits:` of the file."""

    rules: tuple[RuleSection, ...] = ()
    shadow: bool = False
    """Every rule only counts."""
    envoy: tuple[EnvoyRule, ...] = ()

    @field_validator("rules")
    @classmethod
    def _once(cls, rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
        names = [rule.name for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name stands twice: {', '.join(twice)}")
        return rules


class EnvoyRule(Section):
    """One limit for descriptors of Envoy's protocol: each entry is `key` (any value, counted by
    itself) or `key=value`.
    """

    domain: str = Field(min_length=1)
    descriptor: tuple[str, ...] = Field(min_length=1)
    requests_per_unit: int = Field(ge=1)
    unit: Unit
    name: str = ""
    store_loss: Literal["open", "closed"] = "open"
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class SpendPath:
    """Who spends, and on which model."""

    organisation: str
    team: str = ""
    user: str = ""
    key_id: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""

    def values(self, level: Level) -> tuple[str, ...]:
        """The values of a level; a path without one is not counted there."""
        if level == "tag":
            return tuple(dict.fromkeys(self.tags))  # a tag that is said twice is counted once
        value = {
            "organisation": self.organisation,
            "team": self.team,
            "user": self.user,
            "key": self.key_id,
            "model": self.model,
        }[level]
        return (value,) if value else ()


@dataclass(frozen=True, slots=True)
class Counter:
    """One thing that is counted. Times of rates are microseconds, of budgets milliseconds."""

    key: str
    rule: str
    kind: Literal["rate", "calendar", "rolling"]
    dimension: int
    """0 requests, 1 tokens, 2 micro-dollars."""
    limit: int
    expected: bool = False
    shadow: bool = False
    store_loss: str = "lease"
    start: int = 0
    """Rate: period. Calendar: begin of the present window. Rolling: length."""
    end: int = 0
    """Rate: burst. Calendar: end of the present window."""
    following_end: int = 0
    """Calendar: end of the window after."""
    adaptive: bool = False
    alerts: tuple[float, ...] = ()
    amount: int = -1
    """What this counter alone is asked for; -1: what the question says."""

    def row(self) -> list[object]:
        """As the script in the store reads it."""
        return [
            self.key,
            self.kind,
            self.dimension,
            self.limit,
            int(self.expected),
            int(self.shadow),
            self.start,
            self.end,
            self.following_end,
            int(self.adaptive),
            list(self.alerts),
            self.amount,
        ]


def organisation_prefix(organisation: str) -> str:
    """What every key of an organisation begins with: one hash tag, so that one script may touch
    them all.
    """
    return f"penstock:limiter:{{{quote(organisation, safe='')}}}:"


def counters(section: LimitsSection, path: SpendPath, now_s: float) -> tuple[Counter, ...]:
    """The counters of a path in the order of the file, with the windows of `now_s` (Unix time)."""
    found = []
    for rule in section.rules:
        if rule.organisation not in ("*", path.organisation) or (
            rule.models and path.model not in rule.models
        ):
            continue
        found += [
            _counter(rule, path.organisation, value, section.shadow, now_s)
            for value in path.values(rule.level)
            if rule.match in ("*", value)
        ]
    return tuple(found)


def subject(
    section: LimitsSection, rule_name: str, organisation: str, value: str, now_s: float
) -> Counter | None:
    """The counter of one subject of a rule; None for a rule that is not there."""
    rule = next((rule for rule in section.rules if rule.name == rule_name), None)
    return _counter(rule, organisation, value, section.shadow, now_s) if rule else None


def _counter(
    rule: RuleSection, organisation: str, value: str, shadow: bool, now_s: float
) -> Counter:
    counter = Counter(
        f"{organisation_prefix(organisation)}c:{rule.name}:{value}",
        rule.name,
        "rate",
        DIMENSIONS[rule.counts],
        rule.subjects.get(value, rule.limit),
        expected=rule.holds == "expected",
        shadow=shadow or rule.shadow,
        store_loss=rule.store_loss,
    )
    if rule.kind == "rate":
        burst = counter.limit if rule.burst is None else rule.burst
        return replace(counter, start=SECONDS[rule.window] * 1_000_000, end=burst)
    budget = replace(counter, adaptive=rule.adaptive, alerts=rule.alerts)
    if not rule.calendar:
        return replace(budget, kind="rolling", start=SECONDS[rule.window] * 1000)
    start, end, following = windows(rule.window, rule.time_zone, now_s)
    return replace(budget, kind="calendar", start=start, end=end, following_end=following)


def windows(unit: Unit, zone: str, now_s: float) -> tuple[int, int, int]:
    """Begin and end of the calendar window that holds `now_s`, and the end of the next, in Unix
    milliseconds.

    Each window begins where the one before ends, whatever the clocks do: days of 23 hours are days,
    and where clocks change by a part of an hour, the hour that this cuts short is an hour.
    """
    start, end = _window(unit, zone, int(now_s))
    _, following = _window(unit, zone, end)
    return start * 1000, end * 1000, following * 1000


@lru_cache(maxsize=1024)
def _window(unit: Unit, zone: str, now_s: int) -> tuple[int, int]:
    if unit in ("second", "minute", "hour"):
        return _even_window(SECONDS[unit], zone, now_s)
    local = datetime.fromtimestamp(now_s, ZoneInfo(zone)).replace(
        hour=0, minute=0, second=0, microsecond=0, fold=0
    )
    if unit == "week":
        local -= timedelta(days=local.weekday())
    elif unit == "month":
        local = local.replace(day=1)
    days = {"day": 1, "week": 7}.get(unit)
    following = (
        local + timedelta(days=days) if days else (local + timedelta(days=32)).replace(day=1)
    )
    return int(local.timestamp()), int(following.timestamp())


def _even_window(length_s: int, zone: str, now_s: int) -> tuple[int, int]:
    """Windows of one length, which only a change of the clocks by a part of that length cuts."""
    phase = _phase(length_s, zone, now_s)
    start = (now_s + phase) // length_s * length_s - phase
    end = start + length_s

    def changes(at_s: int) -> bool:
        return _phase(length_s, zone, at_s) != phase

    if changes(start):
        start = bisect_left(range(start, now_s), True, key=lambda at_s: not changes(at_s)) + start
    if changes(end - 1):
        end = bisect_left(range(now_s, end), True, key=changes) + now_s
    return start, end


def _phase(length_s: int, zone: str, at_s: int) -> int:
    """Seconds by which the zone's windows begin before those of UTC."""
    offset = datetime.fromtimestamp(at_s, ZoneInfo(zone)).utcoffset() or timedelta()
    return int(offset.total_seconds()) % length_s


LimitsSection.model_rebuild()
