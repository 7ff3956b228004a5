"""The JSON schema for editors: it ships as it is made, and judges as the loader does."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from penstock.stack.config_check import check_file
from penstock.stack.config_schema import config_schema, known_keys, schema_text

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "penstock.schema.json"
RULE = {"name": "a", "kind": "rate", "counts": "requests", "limit": 1, "window": "minute"}
FLAT = {"domain": "d", "descriptor": ["path"], "requests_per_unit": 1, "unit": "hour"}
NODE = {"key": "path", "value": "/v1/*", "rate_limit": {"unit": "hour", "requests_per_unit": 2}}
TREE = {"domain": "d", "descriptors": [{"key": "host", "descriptors": [NODE]}]}
KEY = {"id": "a", "organisation": "o", "sha256": "0" * 64}
MODEL = "all-MiniLM-L6-v2"
SERVER = {"name": "one", "base_url": "http://here", "models": [{"name": "m"}]}

GOOD: list[dict[str, Any]] = [
    {},
    {"limits": None},
    {"limits": {"rules": [RULE]}},
    {"limits": {"envoy": [FLAT, TREE]}},
    {"keys": {"api": [KEY]}},
    {"prices": {"models": [{"name": "m", "input_microusd_per_mtok": 1}]}},
    {"routes": {"fallbacks": {"a": ["b", "c"]}, "models": [{"name": "m", "tasks": ["embed"]}]}},
    {"instances": [{"models": [MODEL]}, {"models": [MODEL], "name": "more", "count": 2}]},
    {"upstreams": {"servers": [SERVER]}},
    {"scaling": {"pools": [{"name": "p", "actuator": {"kind": "process", "command": ["a"]}}]}},
]
BAD: list[dict[str, Any]] = [
    {"limts": {}},
    {"limits": []},
    {"limits": {"rules": [{**RULE, "limit": "many"}]}},
    {"limits": {"rules": [{**RULE, "kind": "other"}]}},
    {"limits": {"envoy": [{**FLAT, "unit": "eon"}]}},
    {"limits": {"envoy": [{**TREE, "descriptors": [{"value": "no key"}]}]}},
    {"keys": {"api": [{**KEY, "sha256": "short"}]}},
    {"keys": {"api": [{"id": "a"}]}},
    {"routes": {"models": [{"name": "m", "quality": 2}]}},
    {"instances": {"models": [MODEL]}},
    {"instances": [{"models": []}]},
    {"instances": [{"models": [MODEL], "count": -1}]},
    {"instances": [{"models": [MODEL], "cont": 1}]},
    {"upstreams": {"servers": [{**SERVER, "models": []}]}},
    {"scaling": {"pools": [{"name": "p", "actuator": {"kind": "process"}}]}},
    {"scaling": {"pools": [{"name": "p", "actuator": {"kind": "none"}}]}},
]


def test_the_schema_that_ships_is_the_one_that_the_loader_gives() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == schema_text(), (
        "run `penstock config schema > deploy/penstock.schema.json`"
    )


def test_it_is_a_valid_schema_and_editors_are_told_of_it() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())
    first_line = (ROOT / "deploy" / "penstock.yaml").read_text().splitlines()[0]
    assert first_line == f"# yaml-language-server: $schema={SHIPPED.name}"


@pytest.mark.parametrize(
    ("content", "is_good"), [(c, True) for c in GOOD] + [(c, False) for c in BAD]
)
def test_schema_and_loader_agree(
    home: Path, tmp_path: Path, content: dict[str, Any], is_good: bool
) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump(content))
    errors = list(jsonschema.Draft202012Validator(config_schema()).iter_errors(content))
    assert (not errors) is is_good
    assert (not check_file(file, home)) is is_good


def test_the_configuration_that_ships_is_valid_by_the_schema() -> None:
    content = yaml.safe_load((ROOT / "deploy" / "penstock.yaml").read_text())
    jsonschema.Draft202012Validator(config_schema()).validate(content)


def test_known_keys_follow_lists_mappings_and_unions() -> None:
    schema = config_schema()
    assert "models" in known_keys(schema, ("instances", 0, "modls"))
    assert "command" in known_keys(schema, ("scaling", "pools", 0, "actuator", "process", "x"))
    assert "limits" in known_keys(schema, ("limts",))


def test_every_file_that_the_guide_shows_is_valid() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    files = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(files) >= 2
    for shown in files:
        # An editor compares the text of a date, which YAML's reader makes a date of.
        as_json = json.loads(json.dumps(yaml.safe_load(shown), default=datetime.isoformat))
        jsonschema.Draft202012Validator(config_schema()).validate(as_json)
