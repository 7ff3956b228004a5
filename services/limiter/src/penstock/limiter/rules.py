"""The rules of the configuration file: its section `limits`, checked when it is read.

A rule applies to a call by the values that the call has on the rule's level; `counters.py` makes
the counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from zoneinfo import ZoneInfo

from penstock.limiter.calendar_windows import Unit
from penstock.limiter.envoy_rules import EnvoyLimits
from penstock.service.settings import Section
from pydantic import Field, field_validator, model_validator

Level = Literal["organisation", "team", "user", "key", "model", "tag"]
StoreLoss = Literal["open", "lease", "closed"]


class RuleSection(Section):
    """One limit: a rate, which refills evenly (GCRA), or a budget for each window of time."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    kind: Literal["rate", "budget"]
    level: Level = "organisation"
    match: str = "*"
    """Value of the level to which the rule applies; `*`: every value, each counted by itself."""
    organisation: str = "*"
    """Organisation to which the rule applies; `*`: every one, each counted by itself."""
    models: tuple[str, ...] = ()
    """Models whose calls are counted; empty: all."""
    counts: Literal["requests", "tokens", "microusd"]
    limit: int = Field(ge=0)
    """Amount a window."""
    window: Unit = "minute"
    calendar: bool = False
    """Budgets only. True: the window begins with the second, minute, ... month of `time_zone`.
    False: the window is rolling.
    """
    time_zone: str = "UTC"
    burst: int | None = Field(None, ge=1)
    """Rates only: the most that may come at once; absent: the limit of one window."""
    holds: Literal["strict", "expected"] = "strict"
    """What is held for a call: the most that it may cost, or what it is expected to cost."""
    store_loss: StoreLoss = "lease"
    """Without the store: `open` allows calls, `lease` allows those that a router's lease covers,
    `closed` refuses.
    """
    shadow: bool = False
    """True: the rule counts and refuses nothing."""
    adaptive: bool = True
    """Budgets only: protects what more urgent priorities are forecast to need."""
    alerts: tuple[float, ...] = (0.8, 0.95)
    """Budgets only: shares of the limit that are reported when they are reached."""
    subjects: Mapping[str, int] = {}
    """Limits of single values of the level, in place of `limit`."""

    @field_validator("time_zone")
    @classmethod
    def _is_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{name!r} is not a time zone; use a name such as Europe/Berlin"
            ) from None
        return name

    @model_validator(mode="after")
    def _is_consistent(self) -> RuleSection:
        if self.kind == "rate" and (self.calendar or self.time_zone != "UTC"):
            raise ValueError("calendar and time_zone do not apply to a rate; use kind: budget")
        if self.kind == "rate" and self.limit == 0:
            raise ValueError("the limit of a rate must be above 0; use kind: budget to allow none")
        if self.kind == "budget" and self.burst is not None:
            raise ValueError("burst does not apply to a budget; use kind: rate")
        is_rising = list(self.alerts) == sorted(self.alerts)
        if not is_rising or not all(0 < share <= 1 for share in self.alerts):
            raise ValueError("alerts must be shares above 0 and at most 1, in rising order")
        return self


class LimitsSection(Section):
    """The section `limits` of the file."""

    rules: tuple[RuleSection, ...] = ()
    shadow: bool = False
    """True: every rule counts and refuses nothing."""
    envoy: tuple[EnvoyLimits, ...] = ()

    @field_validator("rules")
    @classmethod
    def _has_unique_names(cls, rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
        names = [rule.name for rule in rules]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"duplicate rule name: {', '.join(repeated)}")
        return rules
