"""A classifier head trained on a model's embeddings and put into its graph, so that `classify` is
one run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from penstock.onnx.card import BadModel, checksum, write_card
from penstock.onnx.encoder import TextModel

LOGITS = "logits"


def train_head(
    source: Path,
    target: Path,
    name: str,
    train: tuple[Sequence[str], Sequence[str]],
    held_out: tuple[Sequence[str], Sequence[str]],
) -> float:
    """Write to `target` the model of `source` with logistic regression over `train` (texts, labels)
    as its last layer.

    Returns the accuracy on `held_out`, computed by the model that was written.

    Raises:
        BadModel: there are fewer than two labels, or the model gives no embedding.
    """
    from sklearn.linear_model import LogisticRegression

    model = TextModel.load(source)
    if len(set(train[1])) < 2:
        raise BadModel("a head needs texts of at least two labels")
    if "embed" not in model.card.tasks:
        raise BadModel(f"{model.card.name}: gives no embedding to train a head on")
    fitted = LogisticRegression(max_iter=1000, C=10.0).fit(model.embed(train[0]), list(train[1]))
    weights, bias = _both_sides(fitted.coef_, fitted.intercept_)
    target.mkdir(parents=True)
    _fuse(source / model.card.model, target / "model.onnx", weights, bias)
    shutil.copy(source / model.card.tokenizer, target / model.card.tokenizer)
    labels = tuple(str(label) for label in fitted.classes_)
    files = {file: checksum(target / file) for file in ("model.onnx", model.card.tokenizer)}
    changed = {
        "name": name,
        "version": target.name,
        "model": "model.onnx",
        "files": files,
        "labels": labels,
    }
    card = model.card.model_copy(
        update={**changed, "tasks": ("classify", "infer"), "dimension": 0, "figures": {}}
    )
    write_card(target, card)
    answers = TextModel.load(target).embed(held_out[0]).argmax(axis=1)
    accuracy = float(
        np.mean(
            [labels[answer] == label for answer, label in zip(answers, held_out[1], strict=True)]
        )
    )
    write_card(target, card.model_copy(update={"figures": {"held_out_accuracy": accuracy}}))
    return accuracy


def _both_sides(
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    bias: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    np.ndarray[tuple[int, ...], np.dtype[np.float32]],
]:
    """One column for each label; with two labels scikit-learn keeps one row, the second label's,
    against zero.
    """
    if len(weights) == 1:
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.array([0.0, bias[0]])
    return weights.T.astype(np.float32), bias.astype(np.float32)


def _fuse(
    source: Path,
    target: Path,
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    bias: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    model = onnx.load(str(source))
    graph = model.graph
    embedding = graph.output[0].name
    graph.initializer.extend(
        [
            numpy_helper.from_array(weights, "head_weights"),
            numpy_helper.from_array(bias, "head_bias"),
        ]
    )
    graph.node.append(
        helper.make_node("Gemm", [embedding, "head_weights", "head_bias"], [LOGITS], name="head")
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, ["batch", len(bias)])
    )
    onnx.save(model, str(target))
