"""The repository on small models: budget and who leaves, versions swapped under use, bad newcomers,
safe names, no GPU.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from identity import BRAIN, KINDS, write_identity
from penstock.inference_onnx_quantized.repository import ModelRepository
from penstock.onnx import session
from penstock.onnx.card import BadModel, checksum, parse_card, write_card
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import available_providers
from penstock.rpc.errors import Fault

ROW = {"in_FP32": np.ones((1, 3), dtype=np.float32)}


def repository(folder: Path, budget: int, *names: str, padding: int = 10_000) -> ModelRepository:
    for name in names:
        write_identity(folder / name / "1", name, {"FP32": 1}, padding)
    return ModelRepository(folder, budget, TextModel.load)


def loaded(models: ModelRepository) -> list[str]:
    return [item.card.name for item in models.loaded()]


def test_the_least_recently_used_leaves_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = repository(tmp_path, 25_000, "a", "b", "c")
    held = models.load("b")
    models.load("a")
    models.get("b")
    with caplog.at_level(logging.WARNING):
        models.load("c")
    assert loaded(models) == ["b", "c"]
    assert "model a was unloaded" in caplog.text
    models.unload("b")
    assert held.model.session.run(ROW)[0].tolist() == ROW["in_FP32"].tolist()


def test_a_model_beyond_the_budget_changes_nothing(tmp_path: Path) -> None:
    models = repository(tmp_path, 25_000, "a")
    write_identity(tmp_path / "big" / "1", "big", {"FP32": 1}, 30_000)
    models.load("a")
    with pytest.raises(BadModel, match=r"big: needs .* the memory budget is 25,000"):
        models.load("big")
    assert loaded(models) == ["a"]


def test_versions_swap_under_use_without_a_lost_row(tmp_path: Path) -> None:
    models = repository(tmp_path, 1 << 20, "a")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    models.load("a", "1")

    def ask(_: int) -> str:
        held = models.get("a")
        assert held.model.session.run(ROW)[0].tolist() == ROW["in_FP32"].tolist()
        return held.card.version

    with ThreadPoolExecutor(4) as pool:
        before = list(pool.map(ask, range(50)))
        answers = pool.map(ask, range(400))
        models.load("a", "2")
        assert set(answers) <= {"1", "2"}
        after = list(pool.map(ask, range(50)))
    assert (set(before), set(after)) == ({"1"}, {"2"})


@pytest.mark.parametrize("bad", [b"", b"not a model"])
def test_a_bad_new_version_leaves_the_old_one(tmp_path: Path, bad: bytes) -> None:
    models = repository(tmp_path, 1 << 20, "a")
    models.load("a")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    (tmp_path / "a" / "2" / "model.onnx").write_bytes(bad)
    with pytest.raises(BadModel, match="checksum"):
        models.load("a", "2")
    assert models.get("a").card.version == "1"


@pytest.mark.parametrize(
    "change", [lambda data: data[:60], lambda data: data.replace(b"Identity", b"NoSuchOp")]
)
def test_a_graph_that_the_runtime_cannot_load_leaves_the_old_one(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Truncated, or with an operator that nobody knows, and a card that vouches for it."""
    models = repository(tmp_path, 1 << 20, "a", "b")
    models.load("a")
    models.load("b")
    write_identity(tmp_path / "a" / "2", "a", {"FP32": 1})
    graph = tmp_path / "a" / "2" / "model.onnx"
    graph.write_bytes(change(graph.read_bytes()))
    card = parse_card(graph.parent)
    write_card(graph.parent, card.model_copy(update={"files": {"model.onnx": checksum(graph)}}))
    with pytest.raises(BadModel, match=r"model.onnx: onnxruntime cannot load it"):
        models.load("a")
    assert [(item.card.name, item.card.version) for item in models.loaded()] == [
        ("a", "1"),
        ("b", "1"),
    ]
    assert "cannot load" in models.failed["a"]


@pytest.mark.parametrize(
    ("name", "version"), [("../a", ""), ("a/..", ""), ("/etc", ""), ("a", "../1"), (".", "")]
)
def test_no_name_leaves_the_repository(tmp_path: Path, name: str, version: str) -> None:
    models = repository(tmp_path, 1 << 20, "a")
    with pytest.raises(Fault) as caught:
        models.load(name, version)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_without_a_gpu_the_cpu_serves_after_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a process that has loaded several models there is still one line."""
    wanted = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    write_identity(tmp_path / "a" / "1", "a", {"FP32": 1})
    session._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert available_providers(wanted) == ["CPUExecutionProvider"]
        models = ModelRepository(
            tmp_path, 1 << 20, lambda folder: TextModel.load(folder, 1, wanted)
        )
        assert models.load("a").encoder.session.provider == "CPUExecutionProvider"
    assert len(caplog.records) == 1
    assert "TensorrtExecutionProvider, CUDAExecutionProvider (install the gpu extra)" in caplog.text


def test_tensorrt_computes_in_half_precision() -> None:
    assert session.with_provider_options(["TensorrtExecutionProvider", "CPUExecutionProvider"]) == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}),
        ("CPUExecutionProvider", {}),
    ]


@pytest.mark.parametrize("kind", ["FP32", "FP16", "INT64", "BOOL", "BF16"])
def test_io_binding_computes_the_same(tmp_path: Path, kind: str) -> None:
    """The path of a GPU, on the CPU's own provider."""
    write_identity(tmp_path / "a" / "1", "a", {kind: {**KINDS, **BRAIN}[kind]})
    plain, bound = (
        session.OnnxSession(tmp_path / "a" / "1" / "model.onnx", bind=bind)
        for bind in (False, True)
    )
    rows = {
        f"in_{kind}": np.array([[1, 0, 1], [0, 0, 1]]).astype(
            session.NUMPY_OF[plain.inputs[0].type]
        )
    }
    for outputs in (None, [f"out_{kind}"]):
        (expected,), (found,) = plain.run(rows, outputs), bound.run(rows, outputs)
        assert (found.tolist(), found.dtype) == (expected.tolist(), expected.dtype)
    if kind == "FP32":
        with pytest.raises(session.BadInput):
            bound.run({"in_FP32": np.ones((1, 2), dtype=np.float32)})


def test_a_copied_folder_is_the_model_that_its_folder_says(tmp_path: Path) -> None:
    models = repository(tmp_path, 1 << 20, "a")
    shutil.copytree(tmp_path / "a" / "1", tmp_path / "b" / "7")
    assert (models.load("b").card.name, models.get("b").card.version) == ("b", "7")


def test_a_model_beyond_the_budget_is_not_even_read(tmp_path: Path) -> None:
    write_identity(tmp_path / "big" / "1", "big", {"FP32": 1}, 30_000)
    read: list[Path] = []
    with pytest.raises(BadModel, match="memory budget"):
        ModelRepository(
            tmp_path, 25_000, lambda folder: read.append(folder) or TextModel.load(folder)
        ).load("big")  # type: ignore[func-returns-value]
    assert not read
