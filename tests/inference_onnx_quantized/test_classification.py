"""Checks of a task's texts and examples; labels by example; probabilities; typicality."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.inference_onnx_quantized.classification import (
    classify_by_examples,
    softmax,
    top_labels,
)
from penstock.inference_onnx_quantized.compute import all_finite
from penstock.inference_onnx_quantized.request_checks import (
    FieldViolation,
    TaskLimits,
    check_examples,
    check_lengths,
    check_texts,
)
from penstock.inference_onnx_quantized.typicality import REFERENCE_EMBEDDINGS, Typicality

LIMITS = TaskLimits(max_texts=2, max_text_bytes=8, max_tokens=5)


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
def test_a_violation_names_the_text(texts: list[str], field: str | None) -> None:
    violation = check_texts(texts, LIMITS, "t")
    assert (violation.field if violation else None) == field


def test_a_text_longer_than_the_model_takes_is_named() -> None:
    assert check_lengths([5, 5], LIMITS, "t") is None
    expected = FieldViolation("t[1]", "has 6 tokens; the model takes 5")
    assert check_lengths([5, 6], LIMITS, "t") == expected


@pytest.mark.parametrize(
    ("labels", "head_labels", "allowed"),
    [
        ([], ["x", "y"], True),
        ([], [], False),
        (["a", "a"], [], False),
        (["a", ""], [], False),
        (["a", "b"], [], True),
    ],
)
def test_there_must_be_labels_to_choose_from(
    labels: list[str], head_labels: list[str], allowed: bool
) -> None:
    assert (check_examples(labels, head_labels) is None) is allowed


def test_the_label_with_the_nearest_examples_is_the_most_probable() -> None:
    texts = np.eye(3, dtype=np.float32)
    examples = texts[[0, 0, 1, 2]]
    labels, probabilities = classify_by_examples(texts, examples, ["x", "x", "y", "z"])
    assert labels == ["x", "y", "z"]
    assert probabilities.argmax(1).tolist() == [0, 1, 2]
    assert np.allclose(probabilities.sum(1), 1)


def test_the_best_labels_are_ordered_and_ties_go_by_name() -> None:
    ranked = top_labels([0.25, 0.5, 0.25], ["c", "b", "a"], 3)
    assert ranked == [("b", 0.5), ("a", 0.25), ("c", 0.25)]


def test_without_a_number_only_the_best_label_is_given() -> None:
    assert len(top_labels([0.5, 0.5], ["a", "b"], 0)) == 1


def test_the_softmax_of_large_scores_does_not_overflow() -> None:
    assert np.allclose(softmax(np.array([[1e4, 1e4]], dtype=np.float32)), 0.5)


LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, -1.0], True),
        ([LARGEST] * 3, True),
        ([1.0, np.nan], False),
        ([np.inf, -np.inf], False),
        ([np.inf, 1.0], False),
    ],
)
def test_nan_and_infinite_values_are_found(values: list[float], finite: bool) -> None:
    assert all_finite(np.array(values, dtype=np.float32)) is finite


def test_typicality_falls_when_the_texts_change() -> None:
    rng, typicality = np.random.default_rng(3), Typicality()
    usual = np.eye(8)[0] * 3.0
    while_learning = [
        typicality.score(list(usual + rng.normal(0, 0.3, 8))) for _ in range(REFERENCE_EMBEDDINGS)
    ]
    assert while_learning == [None] * REFERENCE_EMBEDDINGS
    same, moved = typicality.score(list(usual)), typicality.score(list(np.eye(8)[1]))
    assert same is not None
    assert same > 0.95
    assert moved is not None
    assert abs(moved) < 0.1


@pytest.mark.parametrize("odd", [[0.0] * 8, [float("nan")] * 8, [1.0] * 7, []])
def test_a_vector_without_direction_or_of_another_dimension_has_no_typicality(
    odd: list[float],
) -> None:
    typicality = Typicality()
    for _ in range(REFERENCE_EMBEDDINGS):
        typicality.score([1.0] * 8)
    assert typicality.score(odd) is None
