"""`export` of a user's own ONNX file, and of Hugging Face directories where torch is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_model import write_onnx, write_tokenizer
from penstock.models.__main__ import main
from penstock.models.export import require_torch
from penstock.onnx.card import BadModel, read_card
from penstock.onnx.encoder import TextModel

HERE = Path(__file__).parent
TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
NEEDS_TORCH = pytest.mark.skipif(
    not TORCH, reason="torch is not installed; scripts/model brings it for the time of a step"
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_onnx(tmp_path / "own.onnx")
    write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "own.onnx"


def test_an_own_encoder_becomes_a_folder_that_quantises(own: Path, tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "mine-fp32" / "1", tmp_path / "mine" / "1"
    assert main(["export", str(own), str(fp32), "--licence", "mine", "--max-tokens", "64"]) == 0
    card = read_card(fp32)
    assert (card.name, card.tasks, card.opset, card.dimension) == (
        "mine-fp32",
        ("embed", "classify", "infer"),
        17,
        4,
    )
    assert (card.licence, card.max_input_tokens, card.sources) == (
        "mine",
        64,
        ("ONNX file own.onnx",),
    )
    assert (fp32 / "card.md").read_text().startswith("# mine-fp32 1")
    assert (
        main(["quantize", str(fp32), str(int8), "--floor", "0.99", "--per-tensor", "--asymmetric"])
        == 0
    )
    made = read_card(int8)
    assert made.quantisation.startswith("dynamic INT8, per tensor, asymmetric, reduce_range ")
    assert made.sources[-1].startswith("mine-fp32 1-")
    assert {"features", "onnxruntime"} <= made.machine.keys()


@pytest.mark.parametrize(
    ("kind", "words", "ratio"), [("fp16", "FP16", 1.2), ("static", "static INT8 QDQ", 0.5)]
)
def test_other_kinds(own: Path, tmp_path: Path, kind: str, words: str, ratio: float) -> None:
    fp32, made = tmp_path / "mine" / "1", tmp_path / "mine" / "2"
    assert main(["export", str(own), str(fp32)]) == 0
    assert (
        main(
            [
                "quantize",
                str(fp32),
                str(made),
                "--kind",
                kind,
                "--floor",
                "0.95",
                "--floor-spearman",
                "0.9",
            ]
        )
        == 0
    )
    card = read_card(made)
    assert card.quantisation.startswith(words)
    assert card.rows_singly
    assert card.figures["spearman"] >= 0.9
    assert card.figures["size_ratio"] > ratio


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    path = tmp_path / "kinds.csv"
    rows = [
        f"{words} {kind},{kind}"
        for words in ("the", "a", "of the", "what do we", "to", "from")
        for kind in ("invoice", "flight")
    ]
    path.write_text("\n".join(["text,category", *rows]))
    return path


def test_floors_on_labelled_texts(
    own: Path, tmp_path: Path, kinds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fp32, made = str(tmp_path / "mine" / "1"), str(tmp_path / "mine" / "2")
    assert main(["export", str(own), fp32]) == 0
    quantise = ["quantize", fp32, made, "--floor", "0", "--floor-agreement"]
    assert main([*quantise, "0.5"]) == 2
    assert "needs labelled texts" in capsys.readouterr().err
    assert main([*quantise, "1.01", "--labelled", str(kinds)]) == 2
    assert "agreement is 1.0000, below the floor 1.01" in capsys.readouterr().err
    assert not Path(made).exists()
    assert main([*quantise, "0.5", "--floor-accuracy", "0.5", "--labelled", str(kinds)]) == 0
    figures = read_card(Path(made)).figures
    assert {
        "accuracy",
        "accuracy_original",
        "accuracy_kept",
        "agreement",
        "spearman",
        "cosine_mean",
    } <= figures.keys()


def test_the_layer_that_hurts_stays_in_floating_point(own: Path, tmp_path: Path) -> None:
    """Between what all layers in INT8 give and what one in floating point gives lies a floor that
    only the search meets.
    """
    fp32 = tmp_path / "mine" / "1"
    assert main(["export", str(own), str(fp32)]) == 0
    found: dict[str, float] = {}
    for version, floor in (("2", "0"), ("3", "0.99999")):
        assert (
            main(
                [
                    "quantize",
                    str(fp32),
                    str(tmp_path / "mine" / version),
                    "--floor",
                    floor,
                    "--per-tensor",
                ]
            )
            == 0
        )
        figures = read_card(tmp_path / "mine" / version).figures
        found[version] = figures["cosine_mean"]
        assert figures["layers_in_floating_point"] == (
            0 if version == "2" else figures["layers_in_floating_point"]
        )
    assert found["2"] < 0.99999 <= found["3"]
    card = read_card(tmp_path / "mine" / "3")
    assert "in floating point: " in card.quantisation
    assert 1 <= card.figures["layers_in_floating_point"] <= 2


def test_an_own_classifier_says_its_labels(own: Path, tmp_path: Path) -> None:
    target = tmp_path / "kinds" / "1"
    assert (
        main(["export", str(own), str(target), "--task", "classify", "--labels", "a,b, c,d"]) == 0
    )
    assert read_card(target).labels == ("a", "b", "c", "d")


def test_a_file_of_tensors_needs_no_tokenizer(tmp_path: Path) -> None:
    write_onnx(tmp_path / "own.onnx", ids="numbers")
    target = tmp_path / "tensors" / "1"
    assert main(["export", str(tmp_path / "own.onnx"), str(target), "--task", "infer"]) == 0
    assert (read_card(target).tasks, read_card(target).tokenizer) == (("infer",), "")
    assert main(["quantize", str(target), str(tmp_path / "tensors" / "2")]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "classify", "--labels", "a,b"], "4 classes and 2 labels"),
        (["--tokenizer", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_does_not_fit_is_refused(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["export", str(own), str(tmp_path / "x" / "1"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x" / "1").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(b"not a model"), "is not a valid ONNX model"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is not a valid ONNX model"),
        (lambda path: path.unlink(), "is not a valid ONNX model"),
        (lambda path: write_onnx(path, operator="NoSuchOperator"), "is not a valid ONNX model"),
        (lambda path: write_onnx(path, ids="numbers"), "input 'numbers' is not one of input_ids"),
        (lambda path: (path.parent / "tokenizer.json").unlink(), "needs a tokenizer"),
        (lambda path: (path.parent / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
    ],
)
def test_a_bad_file_is_named(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object, words: str
) -> None:
    change(own)  # type: ignore[operator]
    assert main(["export", str(own), str(tmp_path / "x" / "1")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_directory_needs_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "x" / "1")]) == 2
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main(["export", str(tmp_path), str(tmp_path / "x" / "1")]) == 2
    assert "tokenizer.json" in capsys.readouterr().err


@pytest.mark.skipif(TORCH, reason="torch is installed here")
def test_without_torch_one_is_told_what_to_do() -> None:
    with pytest.raises(BadModel, match=r"scripts/model .venv export"):
        require_torch()


@NEEDS_TORCH
@pytest.mark.parametrize(
    ("kind", "task", "tasks"),
    [
        ("bert", "embed", ("embed", "classify", "infer")),
        ("distilbert", "embed", ("embed", "classify", "infer")),
        ("bert-labels", "classify", ("classify", "infer")),
        ("bert-pair", "pair", ("infer",)),
    ],
)
def test_a_hugging_face_directory_of_each_task(
    tmp_path: Path, kind: str, task: str, tasks: tuple[str, ...]
) -> None:
    """In processes of their own: torch warns of itself, and warnings are errors here."""
    source, target = tmp_path / "hf", tmp_path / "made" / "1"
    subprocess.run(
        [sys.executable, str(HERE / "hugging_face.py"), kind, str(source)],
        check=True,
        capture_output=True,
    )
    command = [
        sys.executable,
        "-m",
        "penstock.models",
        "export",
        str(source),
        str(target),
        "--task",
        task,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["export_difference_max"] < 1e-4
    assert figures["attention_layers_fused"] == (
        2 if kind == "bert" else figures["attention_layers_fused"]
    )
    model = TextModel.load(target)
    assert (model.card.tasks, model.card.max_input_tokens) == (tasks, 64)
    if task == "embed":
        assert np.linalg.norm(model.embed(["the invoice of march"])) == pytest.approx(1, abs=1e-4)
    if task == "classify":
        assert model.card.labels == ("yes", "no", "perhaps")
    if task == "pair":
        score = model.run(model.encode_pairs([("the invoice", "of march")]))
        assert score.shape == (1, 1)


@NEEDS_TORCH
@pytest.mark.skipif(not importlib.util.find_spec("onnx_ir"), reason="onnx_ir is not installed")
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_a_decoder_is_built_and_answers(tmp_path: Path, precision: str) -> None:
    source, target = tmp_path / "hf", tmp_path / "talker" / "1"
    subprocess.run(
        [sys.executable, str(HERE / "hugging_face.py"), "llama", str(source)],
        check=True,
        capture_output=True,
    )
    command = [
        sys.executable,
        "-m",
        "penstock.models",
        "decoder",
        str(source),
        str(target),
        "--precision",
        precision,
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tried_tokens"] >= 1
    card = read_card(target)
    assert (card.tasks, card.quantisation) == (("generate",), precision)


@NEEDS_TORCH
def test_a_student_has_fewer_layers_and_learns(tmp_path: Path) -> None:
    source, target, texts = tmp_path / "hf", tmp_path / "student", tmp_path / "texts.txt"
    subprocess.run(
        [sys.executable, str(HERE / "hugging_face.py"), "bert", str(source)],
        check=True,
        capture_output=True,
    )
    texts.write_text(
        "\n".join(
            ["the invoice of march", "a broken coffee grinder", "flight from oslo to lisbon"] * 20
        )
    )
    command = [
        sys.executable,
        "-m",
        "penstock.models",
        "distil",
        str(source),
        str(target),
        "--texts",
        str(texts),
        "--json",
    ]
    done = subprocess.run(
        [*command, "--layers", "0,2"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "layers must be from 0 to 1" in done.stderr) == (2, True)
    done = subprocess.run(
        [*command, "--layers", "1", "--epochs", "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cosine_to_teacher"] > 0.9
    assert json.loads((target / "config.json").read_text())["num_hidden_layers"] == 1
    command = [
        sys.executable,
        "-m",
        "penstock.models",
        "export",
        str(target),
        str(tmp_path / "made" / "1"),
        "--json",
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
