"""Import of a user's ONNX file, and of Hugging Face directories where torch is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_model import write_onnx, write_tokenizer
from penstock.models import default
from penstock.models.__main__ import main
from penstock.models.export import require_torch
from penstock.onnx.card import BadModel, read_card, write_card
from penstock.onnx.encoder import TextModel
from safetensors.numpy import save_file
from tiny_bert import CONFIG, random_weights

HERE = Path(__file__).parent
TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
NEEDS_TORCH = pytest.mark.skipif(
    not TORCH, reason="torch is not installed; scripts/model brings it for the time of a step"
)


def run(*arguments: object) -> int:
    """The exit status of a command."""
    return main([str(argument) for argument in arguments])


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """An ONNX file with a tokenizer beside it, as a user might bring."""
    write_onnx(tmp_path / "own.onnx")
    write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "own.onnx"


def test_the_card_of_an_imported_encoder_says_what_it_is(own_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine-fp32" / "1"
    assert run("export", own_model, target, "--licence", "mine", "--max-tokens", 64) == 0
    card = read_card(target)
    assert (card.name, card.opset, card.dimension) == ("mine-fp32", 17, 4)
    assert card.tasks == ("embed", "classify", "rerank", "infer")
    assert (card.licence, card.max_input_tokens) == ("mine", 64)
    assert card.sources == ("ONNX file own.onnx",)
    assert (target / "card.md").read_text().startswith("# mine-fp32 1")


def test_an_imported_scorer_of_pairs_reranks(own_model: Path, tmp_path: Path) -> None:
    assert run("export", own_model, tmp_path / "pairs" / "1", "--task", "pair") == 0
    card = read_card(tmp_path / "pairs" / "1")
    assert (card.tasks, card.dimension, card.labels) == (("rerank", "infer"), 0, ())


def test_the_card_of_a_default_model_of_an_earlier_version_is_renewed(
    own_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / default.NAME / default.VERSION
    assert run("export", own_model, folder) == 0
    before = read_card(folder).model_copy(update={"tasks": ("embed", "classify", "infer")})
    write_card(folder, before)
    assert run("default", "--home", tmp_path) == 0
    assert read_card(folder).tasks == default.TASKS
    assert "its card is renewed" in " ".join(capsys.readouterr().out.split())
    assert run("default", "--home", tmp_path) == 0
    assert "renewed" not in capsys.readouterr().out


def test_an_imported_encoder_can_be_quantised(own_model: Path, tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "mine-fp32" / "1", tmp_path / "mine" / "1"
    assert run("export", own_model, fp32) == 0
    assert run("quantize", fp32, int8, "--floor", 0.99, "--per-tensor", "--asymmetric") == 0
    card = read_card(int8)
    assert card.quantisation.startswith("dynamic INT8, per tensor, asymmetric, reduce_range ")
    assert card.sources[-1].startswith("mine-fp32 1-")
    assert {"features", "onnxruntime"} <= card.machine.keys()


@pytest.mark.parametrize(
    ("kind", "words", "min_ratio"), [("fp16", "FP16", 1.2), ("static", "static INT8 QDQ", 0.5)]
)
def test_a_model_can_be_quantised_in_other_ways(
    own_model: Path, tmp_path: Path, kind: str, words: str, min_ratio: float
) -> None:
    fp32, quantised = tmp_path / "mine" / "1", tmp_path / "mine" / "2"
    assert run("export", own_model, fp32) == 0
    floors = ("--floor", 0.95, "--floor-spearman", 0.9)
    assert run("quantize", fp32, quantised, "--kind", kind, *floors) == 0
    card = read_card(quantised)
    assert card.quantisation.startswith(words)
    assert card.rows_singly
    assert card.figures["spearman"] >= 0.9
    assert card.figures["size_ratio"] > min_ratio


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A CSV of texts about invoices and flights."""
    path = tmp_path / "kinds.csv"
    rows = [
        f"{words} {kind},{kind}"
        for words in ("the", "a", "of the", "what do we", "to", "from")
        for kind in ("invoice", "flight")
    ]
    path.write_text("\n".join(["text,category", *rows]))
    return path


def test_a_floor_on_agreement_needs_labelled_texts(
    own_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fp32, target = tmp_path / "mine" / "1", tmp_path / "mine" / "2"
    assert run("export", own_model, fp32) == 0
    assert run("quantize", fp32, target, "--floor", 0, "--floor-agreement", 0.5) == 2
    assert "needs labelled texts" in capsys.readouterr().err


def test_below_a_floor_nothing_is_published(
    own_model: Path, tmp_path: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fp32, target = tmp_path / "mine" / "1", tmp_path / "mine" / "2"
    assert run("export", own_model, fp32) == 0
    floors = ("--floor", 0, "--floor-agreement", 1.01, "--labelled", labelled)
    assert run("quantize", fp32, target, *floors) == 2
    assert "agreement is 1.0000, below the floor 1.01" in capsys.readouterr().err
    assert not target.exists()


def test_labelled_texts_give_accuracy_and_agreement(
    own_model: Path, tmp_path: Path, labelled: Path
) -> None:
    fp32, target = tmp_path / "mine" / "1", tmp_path / "mine" / "2"
    assert run("export", own_model, fp32) == 0
    floors = ("--floor", 0, "--floor-agreement", 0.5, "--floor-accuracy", 0.5)
    assert run("quantize", fp32, target, *floors, "--labelled", labelled) == 0
    figures = read_card(target).figures
    of_labels = {"accuracy", "accuracy_original", "accuracy_kept", "agreement"}
    assert of_labels | {"spearman", "cosine_mean"} <= figures.keys()


def test_the_layers_that_lose_most_stay_in_floating_point(own_model: Path, tmp_path: Path) -> None:
    """The floor lies between what all layers in INT8 give and what one in floating point gives."""
    fp32, all_int8, mixed = (tmp_path / "mine" / version for version in ("1", "2", "3"))
    assert run("export", own_model, fp32) == 0
    assert run("quantize", fp32, all_int8, "--per-tensor", "--floor", 0) == 0
    assert run("quantize", fp32, mixed, "--per-tensor", "--floor", 0.99999) == 0
    before, after = read_card(all_int8), read_card(mixed)
    assert before.figures["layers_in_floating_point"] == 0
    assert 1 <= after.figures["layers_in_floating_point"] <= 2
    assert before.figures["cosine_mean"] < 0.99999 <= after.figures["cosine_mean"]
    assert "in floating point: " in after.quantisation


def test_an_imported_classifier_has_the_labels_that_are_given(
    own_model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "kinds" / "1"
    assert run("export", own_model, target, "--task", "classify", "--labels", "a,b, c,d") == 0
    assert read_card(target).labels == ("a", "b", "c", "d")


def test_a_model_of_tensors_needs_no_tokenizer_and_cannot_be_judged(tmp_path: Path) -> None:
    write_onnx(tmp_path / "own.onnx", ids="numbers")
    target = tmp_path / "tensors" / "1"
    assert run("export", tmp_path / "own.onnx", target, "--task", "infer") == 0
    card = read_card(target)
    assert (card.tasks, card.tokenizer) == (("infer",), "")
    assert run("quantize", target, tmp_path / "tensors" / "2") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "classify", "--labels", "a,b"], "4 classes and 2 labels"),
        (["--tokenizer", "nowhere.json"], "nowhere.json"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(
    own_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    target = tmp_path / "x" / "1"
    assert run("export", own_model, target, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
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
def test_a_bad_file_is_refused_and_nothing_is_written(
    own_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    words: str,
) -> None:
    damage(own_model)
    assert run("export", own_model, tmp_path / "x" / "1") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_directory_without_a_needed_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", tmp_path, tmp_path / "x" / "1") == 2
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert run("export", tmp_path, tmp_path / "x" / "1") == 2
    assert "tokenizer.json" in capsys.readouterr().err


@pytest.mark.skipif(TORCH, reason="torch is installed here")
def test_where_torch_is_missing_the_error_says_how_to_install_it() -> None:
    with pytest.raises(BadModel, match=r"scripts/model .venv export"):
        require_torch()


def write_bert_directory(folder: Path, prefix: str = "", **config: object) -> Path:
    """A Hugging Face directory of a tiny BERT with random weights, written without torch."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    weights = random_weights(np.random.default_rng(5))
    save_file(
        {f"{prefix}{name}": array for name, array in weights.items()}, folder / "model.safetensors"
    )
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.mark.parametrize(("prefix", "pooling"), [("", "mean"), ("bert.", "cls")])
def test_a_bert_encoder_is_imported_without_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str, pooling: str
) -> None:
    source, target = write_bert_directory(tmp_path / "hf", prefix), tmp_path / "made" / "1"
    assert run("export", source, target, "--pooling", pooling, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["export_difference_max"] < 1e-4
    assert figures["attention_layers_fused"] == 2
    model = TextModel.load(target)
    assert (model.card.dimension, model.card.max_input_tokens) == (32, 64)
    assert np.linalg.norm(model.embed(["the invoice of march"])) == pytest.approx(1, abs=1e-4)


@pytest.mark.skipif(TORCH, reason="torch is installed")
@pytest.mark.parametrize(
    ("task", "config"),
    [("embed", {"model_type": "mpnet"}), ("embed", {"hidden_act": "silu"}), ("classify", {})],
)
def test_other_directories_say_which_extra_they_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, config: dict[str, str]
) -> None:
    source = write_bert_directory(tmp_path / "hf", **config)
    assert run("export", source, tmp_path / "made" / "1", "--task", task) == 2
    assert "pip install 'penstock-models[models]'" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def write_hugging_face(kind: str, folder: Path) -> None:
    """Write a tiny Hugging Face directory, in a process of its own: torch warns on import, and
    warnings are errors here.
    """
    command = [sys.executable, str(HERE / "hugging_face.py"), kind, str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command of the factory with JSON as its output, in a process of its own."""
    command = [sys.executable, "-m", "penstock.models", *map(str, arguments), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@NEEDS_TORCH
@pytest.mark.parametrize(
    ("kind", "task", "tasks"),
    [
        ("bert", "embed", ("embed", "classify", "rerank", "infer")),
        ("distilbert", "embed", ("embed", "classify", "rerank", "infer")),
        ("bert-labels", "classify", ("classify", "infer")),
        ("bert-pair", "pair", ("rerank", "infer")),
    ],
)
def test_a_hugging_face_directory_of_each_task_is_imported(
    tmp_path: Path, kind: str, task: str, tasks: tuple[str, ...]
) -> None:
    source, target = tmp_path / "hf", tmp_path / "made" / "1"
    write_hugging_face(kind, source)
    completed = run_process("export", source, target, "--task", task)
    assert completed.returncode == 0, completed.stderr
    figures = json.loads(completed.stdout)
    assert figures["export_difference_max"] < 1e-4
    if kind == "bert":
        assert figures["attention_layers_fused"] == 2
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
def test_a_built_decoder_answers(tmp_path: Path, precision: str) -> None:
    source, target = tmp_path / "hf", tmp_path / "talker" / "1"
    write_hugging_face("llama", source)
    completed = run_process("decoder", source, target, "--precision", precision)
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["tried_tokens"] >= 1
    card = read_card(target)
    assert (card.tasks, card.quantisation) == (("generate",), precision)


@pytest.fixture
def training_texts(tmp_path: Path) -> Path:
    """Texts from which a student learns."""
    texts = ["the invoice of march", "a broken coffee grinder", "flight from oslo to lisbon"]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts * 20))
    return path


@NEEDS_TORCH
def test_a_layer_that_is_not_there_cannot_be_kept(tmp_path: Path, training_texts: Path) -> None:
    write_hugging_face("bert", tmp_path / "hf")
    completed = run_process(
        "distil",
        tmp_path / "hf",
        tmp_path / "student",
        "--texts",
        training_texts,
        "--layers",
        "0,2",
    )
    assert completed.returncode == 2
    assert "layers must be from 0 to 1" in completed.stderr


@NEEDS_TORCH
def test_a_student_has_fewer_layers_learns_and_can_be_imported(
    tmp_path: Path, training_texts: Path
) -> None:
    student = tmp_path / "student"
    write_hugging_face("bert", tmp_path / "hf")
    options = ("--texts", training_texts, "--layers", "1", "--epochs", 20)
    completed = run_process("distil", tmp_path / "hf", student, *options)
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["cosine_to_teacher"] > 0.9
    assert json.loads((student / "config.json").read_text())["num_hidden_layers"] == 1
    assert run_process("export", student, tmp_path / "made" / "1").returncode == 0
