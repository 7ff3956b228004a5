"""The model factory's command line on the built model: quantise, evaluate, train a head."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from penstock.models.__main__ import main
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import read_card
from penstock.onnx.encoder import TextModel

INT8 = Path("models/all-MiniLM-L6-v2/1")
FP32 = Path("models/all-MiniLM-L6-v2-fp32/1")


def run(*arguments: object) -> int:
    """The exit status of a command."""
    return main([str(argument) for argument in arguments])


@pytest.fixture
def few_texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SAMPLE_TEXTS[:8]))
    return path


def test_a_quantised_model_is_measured_and_named_by_its_folder(
    home: Path, tmp_path: Path, few_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small" / "2"
    options = ("--texts", few_texts, "--floor", 0.97, "--json")
    assert run("quantize", home / FP32, target, *options) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["size_ratio"] > 3.5
    assert figures["cosine_mean"] >= 0.97
    card = read_card(target)
    assert (card.name, card.version, card.rows_singly) == ("small", "2", True)


def test_evaluating_gives_the_figures_of_quantising(
    home: Path, tmp_path: Path, few_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small" / "2"
    options = ("--texts", few_texts, "--json")
    assert run("quantize", home / FP32, target, *options, "--floor", 0.97) == 0
    quantised = json.loads(capsys.readouterr().out)
    assert run("evaluate", home / FP32, target, *options) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["cosine_mean"] == pytest.approx(quantised["cosine_mean"])


def test_a_version_is_never_overwritten(
    home: Path, tmp_path: Path, few_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small" / "2").mkdir(parents=True)
    assert run("quantize", home / FP32, tmp_path / "small" / "2", "--texts", few_texts) == 2
    assert "already there" in capsys.readouterr().err


def test_a_trained_head_classifies_in_one_run(home: Path, tmp_path: Path) -> None:
    path, target = tmp_path / "data.csv", tmp_path / "kinds" / "1"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        for text in SAMPLE_TEXTS[:16]:
            writer.writerow([text, "invoice" if "invoice" in text else "other"])
    assert run("train-head", home / INT8, target, "--train", path, "--test", path, "--json") == 0
    model = TextModel.load(target)
    assert model.card.labels == ("invoice", "other")
    assert model.card.figures["held_out_accuracy"] > 0.9
    assert model.embed(["the invoice of March"]).argmax() == 0


def test_a_csv_without_its_columns_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    target = tmp_path / "x" / "1"
    assert run("train-head", home / INT8, target, "--train", bad, "--test", bad) == 2
    assert "columns text and category" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    assert run("evaluate", home / INT8, home / INT8, "--texts", missing) == 2
    assert f"{missing}: cannot be read" in capsys.readouterr().err
