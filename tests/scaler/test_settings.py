"""Settings: every bad or renamed key is refused by name, costs give the quantile level, schedules
know their hours.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
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


def load_pool(folder: Path, pool: dict[str, Any]) -> None:
    path = folder / "penstock.yaml"
    path.write_text(yaml.safe_dump({"scaling": {"pools": [{"name": "m", **pool}]}}))
    load_section(path, "scaling", ScalingSection)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("least", "min_instances"),
        ("most", "max_instances"),
        ("under", "shortage_cost"),
        ("over", "excess_cost"),
        ("utilisation", "target_utilisation"),
        ("seed_lead_s", "initial_lead_time_s"),
        ("zero_after_s", "scale_to_zero_after_s"),
        ("down_every_s", "scale_down_period_s"),
        ("stale_s", "stale_after_s"),
    ],
)
def test_an_old_name_of_a_pool_setting_is_refused_with_the_new_one(
    tmp_path: Path, old: str, new: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        load_pool(tmp_path, {old: 1})
    (problem,) = caught.value.problems
    assert f"scaling.pools.0.{old}: has a new name; write {new} instead" in problem


@pytest.mark.parametrize(
    ("actuator", "old", "new"),
    [
        ({"kind": "process", "command": ["x"]}, "beside", "unmanaged_instances"),
        ({"kind": "aws", "group": "x"}, "base", "on_demand_base"),
        (SPOT, "base", "on_demand_base"),
        (SPOT, "extra", "overprovision"),
        (SPOT, "patience_s", "on_demand_delay_s"),
    ],
)
def test_an_old_name_of_an_actuator_setting_is_refused_with_the_new_one(
    tmp_path: Path, actuator: dict[str, Any], old: str, new: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        load_pool(tmp_path, {"actuator": {**actuator, old: 1}})
    (problem,) = caught.value.problems
    place = f"scaling.pools.0.actuator.{actuator['kind']}.{old}"
    assert f"{place}: has a new name; write {new} instead" in problem


def test_an_old_name_in_a_schedule_is_refused_with_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(
        BadConfig, match=r"schedules\.0\.least: has a new name; write min_instances"
    ):
        load_pool(tmp_path, {"schedules": [{"least": 3}]})


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
