"""Every fault of a configuration file is named with its line and column."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.onnx.card import ModelCard, checksum, write_card
from penstock.service.settings import SECTIONS
from penstock.stack.config_check import Problem, check_file
from penstock.stack.config_sections import CLASSES

ROOT = Path(__file__).parents[2]
MODEL = "mine"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A home folder with one model of ten bytes."""
    folder = tmp_path / "models" / MODEL / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(10))
    files = {"model.onnx": checksum(folder / "model.onnx")}
    write_card(
        folder,
        ModelCard(name=MODEL, version="1", tasks=("infer",), model="model.onnx", files=files),
    )
    return tmp_path


def check(home: Path, text: str) -> list[Problem]:
    file = home / "penstock.yaml"
    file.write_text(text)
    return check_file(file, home)


def test_every_section_has_a_class_that_reads_it() -> None:
    assert tuple(CLASSES) == SECTIONS


@pytest.mark.parametrize("text", ["", "# nothing\n", "limits:\nscaling: {}\n"])
def test_an_empty_file_and_empty_sections_have_no_fault(models: Path, text: str) -> None:
    assert check(models, text) == []


def test_the_configuration_that_ships_has_no_fault(home: Path) -> None:
    assert check_file(ROOT / "deploy" / "penstock.yaml", home) == []


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "message"),
    [
        ("limts: {}\n", 1, 1, "limts", "unknown section; did you mean limits?"),
        ("keys:\n  api:\n    - {id: a, organisation: o}\n", 3, 7, "keys.api.0.sha256", "required"),
        (
            "instances:\n  - models: [mine]\n    cont: 2\n",
            3,
            5,
            "instances.0.cont",
            "unknown key; did you mean count?",
        ),
        (
            (
                "scaling:\n  pools:\n  - name: p\n"
                "    actuator: {kind: process, comand: [a], command: [b]}\n"
            ),
            4,
            31,
            "scaling.pools.0.actuator.process.comand",
            "did you mean command?",
        ),
        (
            "scaling:\n  pools: [{name: p, least: 1}]\n",
            2,
            21,
            "scaling.pools.0.least",
            "write min_instances instead",
        ),
        (
            "instances: [{models: [mine]}, {models: [mine]}]\n",
            1,
            1,
            "instances",
            "two groups are called mine",
        ),
        (
            "instances: [{models: [other]}]\n",
            1,
            23,
            "instances.0.models.0",
            "'other' is not in",
        ),
        (
            "instances: [{models: [mine], memory_budget_bytes: 9}]\n",
            1,
            14,
            "instances.0.models",
            "need 10 bytes; memory_budget_bytes is 9",
        ),
        ("routes: {}\nroutes: {}\n", 2, 1, "routes", "stands twice"),
        ("keys: [\n", 2, 1, "", "is not YAML"),
        ("- a\n", 1, 1, "", "must hold sections"),
    ],
)
def test_a_fault_is_named_with_its_place(
    models: Path, text: str, line: int, column: int, key: str, message: str
) -> None:
    (problem,) = check(models, text)
    assert (*problem.place, problem.key) == (line, column, key)
    assert message in problem.message


def test_all_faults_are_named_in_the_order_of_the_file(models: Path) -> None:
    problems = check(models, "cach: {}\nlimits: {rules: [{name: a, kid: b}]}\nalert: 1\n")
    assert [problem.place.line for problem in problems] == sorted(
        problem.place.line for problem in problems
    )
    assert {problem.key for problem in problems} >= {"cach", "limits.rules.0.kid", "alert"}


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    (absent,) = check_file(tmp_path / "absent.yaml", tmp_path)
    assert "cannot be read" in absent.message
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (binary,) = check_file(tmp_path / "binary.yaml", tmp_path)
    assert binary.message == "is not UTF-8"


def run_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli", "config", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_prints_a_line_a_fault_and_ends_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("cach: {}\n")
    ended = run_check(str(file))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{file}:1:1: cach: unknown section; did you mean cache?\n"


def test_the_command_gives_json_and_status_0_where_there_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("limits: {}\n")
    ended = run_check(str(file), "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout) == {"file": str(file), "faults": []}
