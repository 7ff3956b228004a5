"""The model factory's command line on the built model: quantise with a floor, evaluate, a head in
the graph.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from penstock.models.__main__ import main
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import read_card
from penstock.onnx.encoder import TextModel


@pytest.fixture
def few(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(text for text in SAMPLE_TEXTS[:8]))
    return path


def test_a_quantised_model_says_what_it_keeps(
    home: Path, tmp_path: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = home / "models" / "all-MiniLM-L6-v2-fp32" / "1", tmp_path / "small" / "2"
    assert (
        main(
            ["quantize", str(source), str(target), "--texts", str(few), "--floor", "0.97", "--json"]
        )
        == 0
    )
    figures = json.loads(capsys.readouterr().out)
    assert figures["size_ratio"] > 3.5
    assert figures["cosine_mean"] >= 0.97
    card = read_card(target)
    assert (card.name, card.version, card.rows_singly) == ("small", "2", True)
    assert main(["evaluate", str(source), str(target), "--texts", str(few), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cosine_mean"] == pytest.approx(
        figures["cosine_mean"]
    )
    assert main(["quantize", str(source), str(target), "--texts", str(few)]) == 2
    assert "already there" in capsys.readouterr().err


def test_a_head_classifies_in_one_run(home: Path, tmp_path: Path) -> None:
    path, target = tmp_path / "data.csv", tmp_path / "kinds" / "1"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        writer.writerows(
            [(text, "invoice" if "invoice" in text else "other") for text in SAMPLE_TEXTS[:16]]
        )
    source = home / "models" / "all-MiniLM-L6-v2" / "1"
    assert (
        main(
            [
                "train-head",
                str(source),
                str(target),
                "--train",
                str(path),
                "--test",
                str(path),
                "--json",
            ]
        )
        == 0
    )
    model = TextModel.load(target)
    assert model.card.labels == ("invoice", "other")
    assert model.card.figures["held_out_accuracy"] > 0.9
    assert model.embed(["the invoice of March"]).argmax() == 0


def test_bad_files_are_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(home / "models" / "all-MiniLM-L6-v2" / "1")
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    assert (
        main(
            [
                "train-head",
                source,
                str(tmp_path / "x" / "1"),
                "--train",
                str(bad),
                "--test",
                str(bad),
            ]
        )
        == 2
    )
    assert "columns text and category" in capsys.readouterr().err
    assert main(["evaluate", source, source, "--texts", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
