"""What should run on this machine, by the configuration and by what the scaler wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from penstock.service.settings import BadConfig
from penstock.stack.instance_groups import ADDED_FILE, LocalPool, read_local_config
from penstock.stack.local_fleet import LocalProcess, scaled_models, wanted_processes

DEFAULTS = [LocalProcess("inference-1", "inference_onnx_quantized", models=("default",))]
SERVER = {"name": "cloud", "base_url": "http://here", "models": [{"name": "m"}]}
CORES = 4


def names(folder: Path, content: dict[str, Any], wanted: dict[str, int] | None = None) -> list[str]:
    """The processes that should run, by name."""
    file = folder / "penstock.yaml"
    file.write_text(yaml.safe_dump(content))
    config = read_local_config(file, folder)
    processes = wanted_processes(config, wanted or {}, DEFAULTS, CORES)
    return [process.name for process in processes]


def pool(**values: Any) -> dict[str, Any]:
    return {"scaling": {"pools": [{"name": "a", **values}]}}


def test_without_a_section_the_default_instances_run(tmp_path: Path) -> None:
    assert names(tmp_path, {}) == ["inference-1"]


def test_an_empty_section_runs_none(tmp_path: Path) -> None:
    assert names(tmp_path, {"instances": []}) == []


def test_instances_are_named_by_group_and_number(tmp_path: Path) -> None:
    groups = [{"models": ["My Model".replace(" ", "_"), "b"], "count": 2}, {"models": ["b"]}]
    assert names(tmp_path, {"instances": groups}) == ["my_model-1", "my_model-2", "b-1"]


def test_every_upstream_gets_a_process(tmp_path: Path) -> None:
    servers = [SERVER, {**SERVER, "name": "other"}]
    content = {"instances": [], "upstreams": {"servers": servers}}
    assert names(tmp_path, content) == ["upstream-cloud", "upstream-other"]


@pytest.mark.parametrize(
    ("values", "wanted", "count"),
    [
        ({"min_instances": 2, "max_instances": 3}, {}, 2),
        ({"min_instances": 1, "max_instances": 9}, {"a": 3}, 3),
        ({"min_instances": 1, "max_instances": 9}, {"a": 9}, CORES),
        ({"min_instances": 6, "max_instances": 9}, {"a": 9}, 6),
        ({"min_instances": 0, "max_instances": 2}, {"a": 0}, 0),
        ({"dry_run": True, "min_instances": 2}, {"a": 3}, 1),
        ({"actuator": {"kind": "kubernetes", "name": "x"}}, {"a": 3}, 1),
    ],
)
def test_a_model_with_a_pool_takes_its_count_from_the_scaler(
    tmp_path: Path, values: dict[str, Any], wanted: dict[str, int], count: int
) -> None:
    content = {"instances": [{"models": ["a"]}], **pool(**values)}
    assert len(names(tmp_path, content, wanted)) == count


def test_a_count_of_its_own_goes_before_the_pools(tmp_path: Path) -> None:
    content = {"instances": [{"models": ["a"], "count": 1}], **pool(min_instances=2)}
    assert names(tmp_path, content, {"a": 3}) == ["a-1"]
    config = read_local_config(tmp_path / "penstock.yaml", tmp_path)
    assert config.pools["a"] == LocalPool(2, 4)
    assert scaled_models(config) == []


def test_added_models_run_beside_those_of_the_file_and_the_default_ones(tmp_path: Path) -> None:
    (tmp_path / ADDED_FILE).write_text("instances: [{models: [mine]}]\n")
    assert names(tmp_path, {}) == ["inference-1", "mine-1"]
    assert names(tmp_path, {"instances": [{"models": ["mine"], "count": 2}]}) == [
        "mine-1",
        "mine-2",
    ]


def test_a_file_of_added_models_that_somebody_spoilt_is_named(tmp_path: Path) -> None:
    (tmp_path / ADDED_FILE).write_text("instances: [{modls: [mine]}]\n")
    with pytest.raises(BadConfig, match=rf"{ADDED_FILE}: instances\.0\.models: "):
        names(tmp_path, {})
