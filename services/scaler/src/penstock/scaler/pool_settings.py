"""The pools to scale: the `scaling` section of the configuration file.

A pool is a model and the instances that serve it. Work is counted in any one unit, such as compute
milliseconds or tokens; capacity and costs use the same unit.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from penstock.scaler.actuator_settings import Actuators, NoActuator
from penstock.scaler.decide.decision import ScalingPolicy, newsvendor_level
from penstock.service.settings import Section
from pydantic import Field, field_validator, model_validator

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIN_LEVEL, MAX_LEVEL = 0.5, 0.99
"""Quantile levels that the forecast computes."""


class Schedule(Section):
    """A minimum number of instances at certain hours."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"least": "min_instances"}

    min_instances: int = Field(ge=0)
    days: tuple[Weekday, ...] = Field(WEEK, description="days on which the hours begin")
    begins: datetime.time = datetime.time(0)
    ends: datetime.time = Field(
        datetime.time.max, description="before `begins`: on the following day"
    )
    time_zone: str = Field("UTC", description="IANA name, such as Europe/Berlin")

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{name!r} is not a known time zone") from None
        return name

    def minimum_at(self, unix_s: float) -> int:
        """Return the minimum number of instances at this moment; 0 outside the hours."""
        local = datetime.datetime.fromtimestamp(unix_s, ZoneInfo(self.time_zone))
        return self.min_instances if self._covers(local.weekday(), local.time()) else 0

    def _covers(self, weekday: int, time: datetime.time) -> bool:
        begins_today = WEEK[weekday] in self.days
        if self.begins <= self.ends:
            return begins_today and self.begins <= time < self.ends
        began_yesterday = WEEK[weekday - 1] in self.days
        return (begins_today and time >= self.begins) or (began_yesterday and time < self.ends)


class PoolConfig(Section):
    """One pool: bounds, costs and times of its scaling, and who starts its instances.

    The pool provides for a quantile of the demand: `level`, or where both costs are given, the
    quantile that minimises their expected sum (the newsvendor's critical ratio).
    """

    renamed_keys: ClassVar[Mapping[str, str]] = {
        "least": "min_instances",
        "most": "max_instances",
        "under": "shortage_cost",
        "over": "excess_cost",
        "utilisation": "target_utilisation",
        "seed_lead_s": "initial_lead_time_s",
        "zero_after_s": "scale_to_zero_after_s",
        "down_every_s": "scale_down_period_s",
        "stale_s": "stale_after_s",
    }

    name: str = Field(min_length=1, description="name of the model")
    min_instances: int = Field(1, ge=0, description="0 lets the pool scale to zero")
    max_instances: int = Field(4, ge=1)
    interval_s: float = Field(60.0, gt=0, description="seconds of one demand sample")
    hold_steps: int = Field(
        2, ge=1, le=6, description="intervals that an instance started now is needed for at least"
    )
    level: float = Field(
        0.95, ge=MIN_LEVEL, le=MAX_LEVEL, description="quantile of demand to provide for"
    )
    shortage_cost: float | None = Field(
        None, ge=0, description="cost of a unit of work without capacity; with excess_cost"
    )
    excess_cost: float | None = Field(
        None, ge=0, description="cost of a unit of unused capacity; with shortage_cost"
    )
    capacity: float = Field(
        0.0, ge=0, description="work of one instance a second; 0: from the batcher's cost model"
    )
    target_utilisation: float = Field(
        0.8, gt=0, le=1, description="share of the capacity to plan with"
    )
    initial_lead_time_s: float = Field(
        180.0, gt=0, description="seconds from decision to ready, until starts have been measured"
    )
    start_cost_s: float = Field(
        180.0, ge=0, description="cost of starting an instance, in seconds of one instance"
    )
    scale_to_zero_after_s: float = Field(
        300.0, ge=0, description="seconds without demand before the last instance is stopped"
    )
    drain_backlog_s: float = Field(
        30.0, gt=0, description="seconds in which waiting work is to be done"
    )
    stale_after_s: float = Field(
        180.0, gt=0, description="seconds without a sample after which demand counts as unknown"
    )
    scale_down_period_s: float = Field(
        60.0, ge=0, description="seconds between two reductions of the number of instances"
    )
    dry_run: bool = Field(False, description="decide, but start and stop nothing")
    schedules: tuple[Schedule, ...] = ()
    actuator: Actuators = NoActuator()

    @model_validator(mode="after")
    def _check_consistency(self) -> PoolConfig:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"min_instances ({self.min_instances}) is above max_instances"
                f" ({self.max_instances})"
            )
        if (self.shortage_cost is None) != (self.excess_cost is None):
            raise ValueError("shortage_cost and excess_cost must be given together")
        if self.shortage_cost is not None and self.excess_cost is not None:
            newsvendor_level(self.shortage_cost, self.excess_cost)
        return self

    @property
    def quantile_level(self) -> float:
        """The quantile of demand to provide for, within what the forecast computes."""
        if self.shortage_cost is None or self.excess_cost is None:
            return self.level
        level = newsvendor_level(self.shortage_cost, self.excess_cost)
        return min(max(level, MIN_LEVEL), MAX_LEVEL)

    @property
    def policy(self) -> ScalingPolicy:
        """The pool's bounds as the decision takes them."""
        return ScalingPolicy(
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            start_cost_s=self.start_cost_s,
            scale_to_zero_after_s=self.scale_to_zero_after_s,
            drain_backlog_s=self.drain_backlog_s,
            stale_after_s=self.stale_after_s,
            scale_down_period_s=self.scale_down_period_s,
        )


class ScalingSection(Section):
    """The `scaling` section of the file."""

    pools: tuple[PoolConfig, ...] = ()

    @field_validator("pools")
    @classmethod
    def _check_names(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        names = [pool.name for pool in pools]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"pools named twice: {', '.join(duplicates)}")
        return pools
