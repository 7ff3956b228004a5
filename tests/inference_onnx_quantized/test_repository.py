"""The model repository on small models: budget and eviction, versions swapped under load, versions
that cannot be used, names, a machine without a GPU.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from identity import BFLOAT16, KINDS, write_identity
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.onnx import session
from penstock.onnx.card import BadModel, checksum, parse_card, write_card
from penstock.onnx.encoder import TextModel
from penstock.rpc.errors import Fault

ROW = {"in_FP32": np.ones((1, 3), dtype=np.float32)}
CPU_ONLY = ["CPUExecutionProvider"]


def repository_of(
    folder: Path, budget_bytes: int, *names: str, padding: int = 10_000
) -> ModelRepository:
    """A repository with these models on disk, each of about `padding` bytes."""
    for name in names:
        write_identity(folder / name / "1", name, {"FP32": 1}, padding)
    return ModelRepository(folder, budget_bytes, TextModel.load)


def loaded_names(repository: ModelRepository) -> list[str]:
    return [model.card.name for model in repository.loaded()]


def test_beyond_the_budget_the_least_recently_used_model_is_unloaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = repository_of(tmp_path, 25_000, "a", "b", "c")
    repository.load("b")
    repository.load("a")
    repository.get("b")
    with caplog.at_level(logging.WARNING):
        repository.load("c")
    assert loaded_names(repository) == ["b", "c"]
    assert "model a was unloaded" in caplog.text


def test_a_model_in_use_stays_usable_after_it_was_unloaded(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    model = repository.load("a")
    repository.unload("a")
    assert loaded_names(repository) == []
    assert model.encoder.session.run(ROW)[0].tolist() == ROW["in_FP32"].tolist()


def test_a_model_larger_than_the_budget_changes_nothing(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, 25_000, "a")
    write_identity(tmp_path / "big" / "1", "big", {"FP32": 1}, 30_000)
    repository.load("a")
    with pytest.raises(BadModel, match=r"big: needs .* the memory budget is 25,000"):
        repository.load("big")
    assert loaded_names(repository) == ["a"]


def test_a_model_larger_than_the_budget_is_not_read(tmp_path: Path) -> None:
    write_identity(tmp_path / "big" / "1", "big", {"FP32": 1}, 30_000)
    read: list[Path] = []

    def load(folder: Path) -> TextModel:
        read.append(folder)
        return TextModel.load(folder)

    with pytest.raises(BadModel, match="memory budget"):
        ModelRepository(tmp_path, 25_000, load).load("big")
    assert not read


def test_versions_are_swapped_under_load_without_a_lost_request(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    repository.load("a", "1")

    def version_of_an_answer(_: int) -> str:
        model = repository.get("a")
        assert model.encoder.session.run(ROW)[0].tolist() == ROW["in_FP32"].tolist()
        return model.card.version

    with ThreadPoolExecutor(4) as pool:
        before = set(pool.map(version_of_an_answer, range(50)))
        during = pool.map(version_of_an_answer, range(400))
        repository.load("a", "2")
        assert set(during) <= {"1", "2"}
        after = set(pool.map(version_of_an_answer, range(50)))
    assert (before, after) == ({"1"}, {"2"})


@pytest.mark.parametrize("data", [b"", b"not a model"])
def test_a_file_that_differs_from_its_card_leaves_the_earlier_version_serving(
    tmp_path: Path, data: bytes
) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    repository.load("a")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    (tmp_path / "a" / "2" / "model.onnx").write_bytes(data)
    with pytest.raises(BadModel, match="checksum"):
        repository.load("a", "2")
    assert repository.get("a").card.version == "1"


def truncated(data: bytes) -> bytes:
    return data[:60]


def with_unknown_operator(data: bytes) -> bytes:
    return data.replace(b"Identity", b"NoSuchOp")


@pytest.mark.parametrize("damage", [truncated, with_unknown_operator])
def test_a_graph_that_the_runtime_cannot_load_leaves_the_earlier_version_serving(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Although its card agrees with the file."""
    repository = repository_of(tmp_path, 1 << 20, "a", "b")
    repository.load("a")
    repository.load("b")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    graph = tmp_path / "a" / "2" / "model.onnx"
    graph.write_bytes(damage(graph.read_bytes()))
    card = parse_card(graph.parent)
    write_card(graph.parent, card.model_copy(update={"files": {"model.onnx": checksum(graph)}}))
    with pytest.raises(BadModel, match=r"model.onnx: onnxruntime cannot load it"):
        repository.load("a")
    versions = [(model.card.name, model.card.version) for model in repository.loaded()]
    assert versions == [("a", "1"), ("b", "1")]
    assert "cannot load" in repository.failed["a"]


@pytest.mark.threat("path traversal by the name of a model")
@pytest.mark.parametrize(
    ("name", "version"), [("../a", ""), ("a/..", ""), ("/etc", ""), ("a", "../1"), (".", "")]
)
def test_no_name_leads_out_of_the_repository(tmp_path: Path, name: str, version: str) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    with pytest.raises(Fault) as caught:
        repository.load(name, version)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_the_highest_version_is_loaded_where_none_is_named(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    for version in ("9", "10"):
        write_identity(tmp_path / "a" / version, "a", {"FP32": 1})
    assert repository.load("a").card.version == "10"


def test_a_copied_folder_is_the_model_that_its_path_says(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, 1 << 20, "a")
    shutil.copytree(tmp_path / "a" / "1", tmp_path / "b" / "7")
    card = repository.load("b").card
    assert (card.name, card.version) == ("b", "7")


def test_without_a_gpu_the_cpu_serves_after_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the life of a process, however many models it loads."""
    missing = "NoSuchExecutionProvider"
    wanted = [missing, "CPUExecutionProvider"]
    write_identity(tmp_path / "a" / "1", "a", {"FP32": 1})
    with caplog.at_level(logging.WARNING):
        assert session.available_providers(wanted) == CPU_ONLY
        for _ in range(2):
            model = TextModel.load(tmp_path / "a" / "1", 1, wanted)
            assert model.session.provider == "CPUExecutionProvider"
    assert len(caplog.records) == 1
    assert f"{missing} (install the gpu extra)" in caplog.text


def test_tensorrt_may_compute_in_half_precision() -> None:
    providers = session.with_provider_options(["TensorrtExecutionProvider", *CPU_ONLY])
    assert providers == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}),
        ("CPUExecutionProvider", {}),
    ]


@pytest.mark.parametrize("kind", ["FP32", "FP16", "INT64", "BOOL", "BF16"])
@pytest.mark.parametrize("names_outputs", [False, True])
def test_io_binding_computes_the_same(tmp_path: Path, kind: str, names_outputs: bool) -> None:
    """The path that a GPU takes, on the CPU's own provider."""
    write_identity(tmp_path / "1", "a", {kind: {**KINDS, **BFLOAT16}[kind]})
    plain = session.OnnxSession(tmp_path / "1" / "model.onnx", bind=False)
    bound = session.OnnxSession(tmp_path / "1" / "model.onnx", bind=True)
    dtype = session.NUMPY_OF[plain.inputs[0].type]
    rows = {f"in_{kind}": np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)}
    outputs = [f"out_{kind}"] if names_outputs else None
    (expected,), (found,) = plain.run(rows, outputs), bound.run(rows, outputs)
    assert (found.tolist(), found.dtype) == (expected.tolist(), expected.dtype)


def test_io_binding_refuses_a_shape_that_does_not_fit(tmp_path: Path) -> None:
    write_identity(tmp_path / "1", "a", {"FP32": 1})
    bound = session.OnnxSession(tmp_path / "1" / "model.onnx", bind=True)
    with pytest.raises(session.BadInput):
        bound.run({"in_FP32": np.ones((1, 2), dtype=np.float32)})
