"""Settings: every bad or renamed key is refused by name, costs give the quantile level, schedules
know their hours.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from penstock.scaler.actuator_settings import AwsSpotActuator
from penstock.scaler.pool_settings import PoolConfig, ScalingSection, Schedule
from penstock.scaler.settings import ScalerSettings
from penstock.service.settings import BadConfig, load_section
from pydantic import ValidationError

SPOT = {
    "kind": "aws_spot",
    "launch_template": "x",
    "instance_type": "t3.micro",
    "zones": {"a": "a"},
    "on_demand_price": 1.0,
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"min_instances": 5, "max_instances": 2}, r"min_instances \(5\) is above max_instances"),
        ({"shortage_cost": 1.0}, "shortage_cost and excess_cost must be given together"),
        ({"shortage_cost": 0.0, "excess_cost": 0.0}, "must not be negative"),
        ({"level": 1.5}, "level"),
        ({"schedules": [{"min_instances": 1, "time_zone": "Mars/Base"}]}, "Mars/Base"),
        ({"actuator": {"kind": "magic"}}, "magic"),
        ({"actuator": {"kind": "process", "command": []}}, "command"),
        ({"actuator": {**SPOT, "more_types": {"t3.micro": 2}}}, "instance_type already"),
        ({"actuator": {**SPOT, "more_types": {"t3.large": 0}}}, "t3.large"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_pool_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        PoolConfig.model_validate({"name": "m", **changes})


def test_two_pools_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="named twice: m"):
        ScalingSection.model_validate({"pools": [{"name": "m"}, {"name": "m"}]})


def test_old_names_of_settings_are_refused_with_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "scaling:\n"
        "  pools:\n"
        "    - {name: m, least: 1, most: 2, under: 9, over: 1}\n"
        "    - name: n\n"
        "      schedules: [{least: 3}]\n"
        "      actuator: {kind: process, command: [x], beside: 2}\n"
    )
    with pytest.raises(BadConfig) as caught:
        load_section(path, "scaling", ScalingSection)
    assert sorted(caught.value.problems) == [
        f"{path}: scaling.pools.{key}: has a new name; write {new} instead (line {line})"
        for key, new, line in (
            ("0.least", "min_instances", 3),
            ("0.most", "max_instances", 3),
            ("0.over", "excess_cost", 3),
            ("0.under", "shortage_cost", 3),
            ("1.actuator.process.beside", "unmanaged_instances", 6),
            ("1.schedules.0.least", "min_instances", 5),
        )
    ]


@pytest.mark.parametrize(
    ("costs", "level"),
    [
        ({"shortage_cost": 9.0, "excess_cost": 1.0}, 0.9),
        ({"shortage_cost": 1e9, "excess_cost": 1.0}, 0.99),
        ({}, 0.95),
    ],
)
def test_costs_give_the_quantile_level(costs: dict[str, float], level: float) -> None:
    assert PoolConfig.model_validate({"name": "m", **costs}).quantile_level == level


def unix_s(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("moment", "minimum"), [("01T05:59", 0), ("01T06:00", 3), ("01T16:00", 0), ("02T08:00", 0)]
)
def test_a_schedule_holds_on_its_days_in_its_time_zone(moment: str, minimum: int) -> None:
    office = Schedule(
        min_instances=3,
        days=("mon",),
        begins=datetime.time(8),
        ends=datetime.time(18),
        time_zone="Europe/Berlin",
    )
    assert office.minimum_at(unix_s(f"2026-06-{moment}:00+00:00")) == minimum


@pytest.mark.parametrize(
    ("moment", "minimum"), [("01T21:59", 0), ("01T22:00", 2), ("02T03:59", 2), ("01T03:00", 0)]
)
def test_a_schedule_may_pass_midnight(moment: str, minimum: int) -> None:
    night = Schedule(
        min_instances=2, days=("mon",), begins=datetime.time(22), ends=datetime.time(4)
    )
    assert night.minimum_at(unix_s(f"2026-06-{moment}:00+00:00")) == minimum


def test_a_metadata_address_must_be_a_url_of_a_known_cloud() -> None:
    with pytest.raises(ValidationError, match="metadata_url"):
        ScalerSettings(metadata_url="169.254.169.254")
    with pytest.raises(ValidationError, match="metadata_cloud"):
        ScalerSettings.model_validate({"metadata_cloud": "moon"})
    url = ScalerSettings(metadata_url="http://169.254.169.254/").metadata_url
    assert url == "http://169.254.169.254"


def test_types_of_spot_machines_have_capacities() -> None:
    actuator = {**SPOT, "more_types": {"t3.large": 4}}
    config = PoolConfig.model_validate({"name": "m", "actuator": actuator}).actuator
    assert isinstance(config, AwsSpotActuator)
    assert config.capacities == {"t3.micro": 1.0, "t3.large": 4.0}
