"""What is refused, by which field; labels by example; probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.inference_onnx_quantized.classification import (
    FieldViolation,
    TextLimits,
    best,
    check_examples,
    check_lengths,
    check_texts,
    classify_by_examples,
    softmax,
)
from penstock.inference_onnx_quantized.typicality import REFERENCE_EMBEDDINGS, Typicality

LIMITS = TextLimits(max_texts=2, max_text_bytes=8, max_tokens=5)


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ([], "t"),
        (["a", "b", "c"], "t"),
        (["a", ""], "t[1]"),
        ([" \n\t"], "t[0]"),
        (["ok", "ünicöde!"], "t[1]"),
        (["fine"], None),
        (["12345678"], None),
    ],
)
def test_texts(texts: list[str], field: str | None) -> None:
    problem = check_texts(texts, LIMITS, "t")
    assert (problem.field if problem else None) == field


def test_a_text_longer_than_the_model_is_named() -> None:
    assert check_lengths([5, 5], LIMITS, "t") is None
    assert check_lengths([5, 6], LIMITS, "t") == FieldViolation(
        "t[1]", "has 6 tokens; the model takes 5"
    )


@pytest.mark.parametrize(
    ("labels", "own", "good"),
    [
        ([], ["x", "y"], True),
        ([], [], False),
        (["a", "a"], [], False),
        (["a", ""], [], False),
        (["a", "b"], [], True),
    ],
)
def test_examples(labels: list[str], own: list[str], good: bool) -> None:
    assert (check_examples(labels, own) is None) is good


def test_the_nearest_class_is_the_most_probable() -> None:
    examples = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    names, probabilities = classify_by_examples(
        np.eye(3, dtype=np.float32), examples, ["x", "x", "y", "z"]
    )
    assert names == ["x", "y", "z"]
    assert probabilities.argmax(1).tolist() == [0, 1, 2]
    assert np.allclose(probabilities.sum(1), 1)


def test_best_is_ordered_and_ties_go_by_name() -> None:
    assert best([0.25, 0.5, 0.25], ["c", "b", "a"], 3) == [("b", 0.5), ("a", 0.25), ("c", 0.25)]
    assert len(best([0.5, 0.5], ["a", "b"], 0)) == 1


def test_softmax_survives_large_scores() -> None:
    assert np.allclose(softmax(np.array([[1e4, 1e4]], dtype=np.float32)), 0.5)


def test_typicality_is_told_after_its_reference_and_falls_when_what_is_asked_moves() -> None:
    rng, usual = np.random.default_rng(3), Typicality()
    near = np.eye(8)[0] * 3.0
    assert [usual.of(list(near + rng.normal(0, 0.3, 8))) for _ in range(REFERENCE_EMBEDDINGS)] == [
        None
    ] * REFERENCE_EMBEDDINGS
    same, moved = usual.of(list(near)), usual.of(list(np.eye(8)[1]))
    assert same is not None and moved is not None and same > 0.95 and abs(moved) < 0.1


@pytest.mark.parametrize("odd", [[0.0] * 8, [float("nan")] * 8, [1.0] * 7, []])
def test_typicality_of_what_is_no_such_embedding_is_not_told(odd: list[float]) -> None:
    usual = Typicality()
    for _ in range(REFERENCE_EMBEDDINGS):
        usual.of([1.0] * 8)
    assert usual.of(odd) is None
