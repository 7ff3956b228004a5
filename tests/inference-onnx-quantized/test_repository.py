"""The repository on small models: budget and who leaves, versions swapped under use, bad newcomers, safe names, no GPU."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from penstock.core.errors import Fault
from penstock.inference_onnx_quantized.repository import Repository
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import usable

sys.path.insert(0, str(Path(__file__).parent))
from identity import write_identity

ROW = {"in_FP32": np.ones((1, 3), dtype=np.float32)}


def repository(folder: Path, budget: int, *names: str, padding: int = 10_000) -> Repository:
    for name in names:
        write_identity(folder / name / "1", name, {"FP32": 1}, padding)
    return Repository(folder, budget, TextModel.load)


def loaded(models: Repository) -> list[str]:
    return [item.card.name for item in models.loaded()]


def test_the_least_recently_used_leaves_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


@pytest.mark.parametrize(("name", "version"), [("../a", ""), ("a/..", ""), ("/etc", ""), ("a", "../1"), (".", "")])
def test_no_name_leaves_the_repository(tmp_path: Path, name: str, version: str) -> None:
    models = repository(tmp_path, 1 << 20, "a")
    with pytest.raises(Fault) as caught:
        models.load(name, version)
    assert caught.value.code.name == "INVALID_ARGUMENT"


def test_without_a_gpu_the_cpu_serves_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        providers = usable(["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"])
    assert providers == ["CPUExecutionProvider"]
    assert len(caplog.records) == 1
    assert "TensorrtExecutionProvider, CUDAExecutionProvider (install the gpu extra)" in caplog.text
