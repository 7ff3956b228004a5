"""A classifier head, trained on a model's embeddings and put into its graph, so that `classify` is
one run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.encoder import Floats, TextModel

LOGITS = "logits"
MODEL_FILE = "model.onnx"
Labelled = tuple[Sequence[str], Sequence[str]]
"""Texts and their labels."""


def train_head(source: Path, target: Path, name: str, train: Labelled, held_out: Labelled) -> float:
    """Write to `target` the model of `source` with a logistic regression over `train` as its last
    layer; returns the accuracy of the written model on `held_out`.

    Args:
        name: the new model's name.

    Raises:
        BadModel: there are fewer than two labels, or the model gives no embeddings.
    """
    from sklearn.linear_model import LogisticRegression

    model = TextModel.load(source)
    if len(set(train[1])) < 2:
        raise BadModel("a head needs texts of at least two labels")
    if not model.card.dimension:
        raise BadModel(f"{model.card.name}: gives no embeddings to train a head on")
    regression = LogisticRegression(max_iter=1000, C=10.0)
    regression.fit(model.embed(train[0]), list(train[1]))
    weights, bias = _per_label(regression.coef_, regression.intercept_)
    target.mkdir(parents=True)
    _add_head(source / model.card.model, target / MODEL_FILE, weights, bias)
    shutil.copy(source / model.card.tokenizer, target / model.card.tokenizer)
    card = _card(model.card, target, name, tuple(map(str, regression.classes_)))
    write_card(target, card)
    accuracy = _accuracy(TextModel.load(target), held_out)
    write_card(target, card.model_copy(update={"figures": {"held_out_accuracy": accuracy}}))
    return accuracy


def _card(before: ModelCard, folder: Path, name: str, labels: tuple[str, ...]) -> ModelCard:
    files = {file: checksum(folder / file) for file in (MODEL_FILE, before.tokenizer)}
    update = {
        "name": name,
        "version": folder.name,
        "tasks": ("classify", "infer"),
        "model": MODEL_FILE,
        "files": files,
        "labels": labels,
        "dimension": 0,
        "figures": {},
    }
    return before.model_copy(update=update)


def _accuracy(model: TextModel, labelled: Labelled) -> float:
    texts, labels = labelled
    predictions = [model.card.labels[best] for best in model.embed(texts).argmax(axis=1)]
    return float(np.mean([a == b for a, b in zip(predictions, labels, strict=True)]))


def _per_label(
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    bias: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[Floats, Floats]:
    """Weights with a column for each label, and a bias for each label.

    With two labels scikit-learn keeps only the second label's, against zero for the first.
    """
    if len(weights) == 1:
        weights = np.vstack([np.zeros_like(weights), weights])
        bias = np.array([0.0, bias[0]])
    return weights.T.astype(np.float32), bias.astype(np.float32)


def _add_head(source: Path, target: Path, weights: Floats, bias: Floats) -> None:
    """Write `source` to `target` with logits in place of the embedding as its output."""
    model = onnx.load(str(source))
    graph = model.graph
    embedding = graph.output[0].name
    graph.initializer.append(numpy_helper.from_array(weights, "head_weights"))
    graph.initializer.append(numpy_helper.from_array(bias, "head_bias"))
    inputs = [embedding, "head_weights", "head_bias"]
    graph.node.append(helper.make_node("Gemm", inputs, [LOGITS], name="head"))
    del graph.output[:]
    shape: list[str | int | None] = ["batch", len(bias)]
    graph.output.append(helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, shape))
    onnx.save(model, str(target))
