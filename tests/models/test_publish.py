"""Publishing a model folder: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.models.publish import publish
from penstock.onnx.card import BadModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.onnx").write_text("new")
    return tmp_path / "made"


def test_a_folder_takes_the_place_of_an_older_one(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "mine" / "1"
    target.mkdir(parents=True)
    (target / "old").touch()
    assert publish(folder, target) == target
    assert [path.name for path in target.parent.rglob("*")] == ["1", "model.onnx"]


def test_a_copy_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "broken").symlink_to("nowhere")
    with pytest.raises(BadModel, match=r"mine/1: cannot be written \(.*No such file"):
        publish(folder, tmp_path / "models" / "mine" / "1")
    assert not (tmp_path / "models").exists()


def test_a_copy_that_fails_leaves_what_was_there(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "mine" / "1"
    publish(folder, target)
    (folder / "broken").symlink_to("nowhere")
    with pytest.raises(BadModel):
        publish(folder, target)
    assert [path.name for path in target.parent.rglob("*")] == ["1", "model.onnx"]


def test_a_target_below_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    with pytest.raises(BadModel, match="cannot be written"):
        publish(folder, tmp_path / "models" / "mine" / "1")
