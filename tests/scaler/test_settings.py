"""Pools from the file: every bad key is named, prices give the quantile, schedules know their
hours.
"""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from penstock.scaler.settings import (
    AwsSpotActuator,
    PoolConfig,
    ScalerSettings,
    ScalingSection,
    Schedule,
)
from pydantic import ValidationError

SPOT = {
    "kind": "aws_spot",
    "launch_template": "x",
    "instance_type": "t3.micro",
    "zones": {"a": "a"},
    "on_demand_price": 1.0,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"least": 5, "most": 2},
        {"under": 1.0},
        {"under": 0.0, "over": 0.0},
        {"level": 1.5},
        {"schedules": [{"least": 1, "time_zone": "Mars/Base"}]},
        {"actuator": {"kind": "magic"}},
        {"actuator": {"kind": "process", "command": []}},
        {"actuator": {**SPOT, "more_types": {"t3.micro": 2}}},
        {"actuator": {**SPOT, "more_types": {"t3.large": 0}}},
        {"colour": "red"},
    ],
)
def test_a_bad_pool_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PoolConfig.model_validate({"name": "m", **changes})


def test_two_pools_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="named twice: m"):
        ScalingSection.model_validate({"pools": [{"name": "m"}, {"name": "m"}]})


def test_prices_give_the_level() -> None:
    assert PoolConfig(name="m", under=9.0, over=1.0).wanted_level == 0.9
    assert PoolConfig(name="m", under=1e9, over=1.0).wanted_level == 0.99
    assert PoolConfig(name="m").wanted_level == 0.95


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_schedules_know_zone_weekday_and_midnight() -> None:
    office = Schedule(
        least=3,
        days=("mon",),
        begins=datetime.time(8),
        ends=datetime.time(18),
        time_zone="Europe/Berlin",
    )
    asked = [
        office.asks(at(f"2026-06-{moment}:00+00:00"))
        for moment in ("01T05:59", "01T06:00", "01T16:00", "02T08:00")
    ]
    assert asked == [0, 3, 0, 0]
    night = Schedule(least=2, days=("mon",), begins=datetime.time(22), ends=datetime.time(4))
    asked = [
        night.asks(at(f"2026-06-{moment}:00+00:00"))
        for moment in ("01T21:59", "01T22:00", "02T03:59", "01T03:00")
    ]
    assert asked == [0, 2, 2, 0]


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="metadata_url"):
        ScalerSettings(metadata_url="169.254.169.254")
    with pytest.raises(ValidationError, match="metadata_cloud"):
        ScalerSettings(metadata_cloud="moon")  # type: ignore[arg-type]
    assert (
        ScalerSettings(metadata_url="http://169.254.169.254/").metadata_url
        == "http://169.254.169.254"
    )


def test_types_of_spot_machines_have_sizes() -> None:
    found = PoolConfig.model_validate(
        {"name": "m", "actuator": {**SPOT, "more_types": {"t3.large": 4}}}
    ).actuator
    assert isinstance(found, AwsSpotActuator) and found.capacities == {
        "t3.micro": 1.0,
        "t3.large": 4.0,
    }
