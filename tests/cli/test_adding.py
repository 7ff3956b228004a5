"""What `penstock models add` does with each kind of source, and the file of added models."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from penstock.cli.adding import (
    Options,
    added_instances,
    available_memory_bytes,
    kind_of,
    memory_problem,
    name_of,
    next_version,
    plan_import,
    weight_bytes,
    with_model,
    without_model,
    write_added,
)
from penstock.service.local_models import ADDED_FILE


def hugging_face(folder: Path, architecture: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "model.safetensors").write_bytes(bytes(100))
    return folder


def test_the_kind_is_what_the_source_is(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.ONNX").touch()
    assert kind_of(tmp_path / "a.gguf") == "gguf"
    assert kind_of(tmp_path / "b.ONNX") == "onnx"
    assert kind_of(hugging_face(tmp_path / "c", "BertModel")) == "encoder"
    assert kind_of(hugging_face(tmp_path / "d", "LlamaForCausalLM")) == "decoder"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for source in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(click.UsageError, match=r"neither a \.gguf nor a \.onnx"):
            kind_of(source)


@pytest.mark.parametrize(
    ("source", "given", "name"),
    [("My Model (v2).gguf", "", "My-Model-v2"), ("x.onnx", "mine", "mine")],
)
def test_the_name_is_given_or_made_of_the_sources(
    tmp_path: Path, source: str, given: str, name: str
) -> None:
    assert name_of(tmp_path / source, given) == name


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--name"):
        name_of(tmp_path / "x", "../up")


def test_each_version_follows_the_highest(tmp_path: Path) -> None:
    assert next_version(tmp_path, "m") == "1"
    for version in ("2", "10", "old"):
        (tmp_path / "m" / version).mkdir(parents=True)
    assert next_version(tmp_path, "m") == "11"


def commands(plan_steps: object) -> list[str]:
    return [step.arguments[0] for step in plan_steps]  # type: ignore[attr-defined]


def test_an_encoder_is_exported_quantised_and_judged(tmp_path: Path) -> None:
    source = hugging_face(tmp_path / "bert", "BertForSequenceClassification")
    plan = plan_import(source, "encoder", "bert", tmp_path / "models", Options(floor=0.9))
    export, quantise = plan.steps
    assert export.needs_torch and not quantise.needs_torch
    assert export.arguments[3:5] == ("--task", "classify")
    assert quantise.arguments[-2:] == ("--floor", "0.9")
    assert plan.target == tmp_path / "models" / "bert" / "1"
    assert plan.by_products == (tmp_path / "models" / "bert-fp32" / "1",)


@pytest.mark.parametrize(
    ("config", "task", "needs_torch"),
    [
        ({"model_type": "bert", "hidden_act": "gelu"}, "", False),
        ({"model_type": "bert", "hidden_act": "gelu"}, "classify", True),
        ({"model_type": "distilbert"}, "", True),
    ],
)
def test_torch_is_fetched_only_for_encoders_whose_graph_is_not_written_here(
    tmp_path: Path, config: dict[str, str], task: str, needs_torch: bool
) -> None:
    source = hugging_face(tmp_path / "own", "SomeModel")
    (source / "config.json").write_text(json.dumps(config))
    plan = plan_import(source, "encoder", "own", tmp_path / "models", Options(task=task))
    assert [step.needs_torch for step in plan.steps] == [needs_torch, False]


def test_a_gguf_file_keeps_its_precision_and_a_model_of_tensors_is_taken_as_it_is(
    tmp_path: Path,
) -> None:
    gguf = plan_import(tmp_path / "a.gguf", "gguf", "a", tmp_path, Options(licence="MIT"))
    assert commands(gguf.steps) == ["import-gguf"]
    assert gguf.steps[0].arguments[-2:] == ("--licence", "MIT")
    tensors = plan_import(tmp_path / "a.onnx", "onnx", "a", tmp_path, Options(task="infer"))
    assert commands(tensors.steps) == ["export"]
    assert not tensors.steps[0].needs_torch


def test_a_model_over_the_memory_is_refused_where_the_memory_is_known(tmp_path: Path) -> None:
    source = hugging_face(tmp_path / "bert", "BertModel")
    assert weight_bytes(source) == 100
    assert "0.0 GB of memory are free" in memory_problem(100, 99)
    assert memory_problem(100, 100) == ""
    assert memory_problem(100, 0) == ""


def test_memory_is_read_from_the_system(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8 kB\nMemAvailable: 4 kB\n")
    assert available_memory_bytes(meminfo) == 4096
    assert available_memory_bytes(tmp_path / "absent") == 0


def test_added_models_are_written_once_and_removed_again(tmp_path: Path) -> None:
    assert added_instances(tmp_path) == []
    entries = with_model(with_model([], "a"), "b")
    write_added(tmp_path, with_model(entries, "a"))
    assert added_instances(tmp_path) == [{"models": ["a"]}, {"models": ["b"]}]
    assert without_model(added_instances(tmp_path), "a") == [{"models": ["b"]}]
    assert [path.name for path in tmp_path.iterdir()] == [ADDED_FILE]


@pytest.mark.parametrize("content", ["- a\n", "instances: 5\n", "a: [\n"])
def test_a_spoilt_file_of_added_models_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / ADDED_FILE).write_text(content)
    with pytest.raises(click.UsageError, match=ADDED_FILE):
        added_instances(tmp_path)
