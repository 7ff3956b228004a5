"""What a model is asked and what its numbers mean: checks, labels by example, probabilities.

Plain values and arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

SOFTMAX_TEMPERATURE = 0.07
"""Divides cosines before the softmax over classes; the value sentence encoders are commonly trained
with.
"""

MAX_STOP_STRINGS = 16
MAX_OUTPUT_TOKENS = 1 << 20


@dataclass(frozen=True)
class TextLimits:
    """Bounds of a task."""

    max_texts: int
    max_text_bytes: int
    max_tokens: int
    max_tensor_bytes: int = 64 << 20
    """Of all tensors of a task, in or out."""


@dataclass(frozen=True)
class FieldViolation:
    """A field that the caller must mend."""

    field: str
    message: str


def check_texts(texts: Sequence[str], limits: TextLimits, field: str) -> FieldViolation | None:
    """The first thing wrong with a task's texts, before any token is counted."""
    if not texts:
        return FieldViolation(field, "needs at least one text")
    if len(texts) > limits.max_texts:
        return FieldViolation(
            field, f"has {len(texts)} texts; at most {limits.max_texts} are allowed"
        )
    for index, text in enumerate(texts):
        if not text.strip():
            return FieldViolation(f"{field}[{index}]", "is empty")
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > limits.max_text_bytes:
            return FieldViolation(
                f"{field}[{index}]",
                f"has {size} bytes; at most {limits.max_text_bytes} are allowed",
            )
    return None


def check_lengths(lengths: Sequence[int], limits: TextLimits, field: str) -> FieldViolation | None:
    """The first text that is longer than the model."""
    for index, length in enumerate(lengths):
        if length > limits.max_tokens:
            return FieldViolation(
                f"{field}[{index}]", f"has {length} tokens; the model takes {limits.max_tokens}"
            )
    return None


def check_examples(labels: Sequence[str], own_labels: Sequence[str]) -> FieldViolation | None:
    """Whether there is anything to choose from."""
    if not labels:
        return (
            None
            if own_labels
            else FieldViolation(
                "task.classify.examples", "are needed: this model has no classifier head of its own"
            )
        )
    if any(not label for label in labels):
        return FieldViolation("task.classify.examples", "has an example without a label")
    if len(set(labels)) < 2:
        return FieldViolation("task.classify.examples", "need at least two labels")
    return None


def check_sampling(
    max_tokens: int, temperature: float, top_p: float, stop: Sequence[str]
) -> FieldViolation | None:
    """The first thing wrong with how an answer is to be made."""
    if max_tokens > MAX_OUTPUT_TOKENS:
        return FieldViolation(
            "task.generate.max_tokens", f"is {max_tokens}; at most {MAX_OUTPUT_TOKENS} are allowed"
        )
    if not 0 <= temperature <= 2:
        return FieldViolation("task.generate.temperature", "must be from 0 to 2")
    if not 0 < top_p <= 1:
        return FieldViolation("task.generate.top_p", "must be above 0 and at most 1")
    if len(stop) > MAX_STOP_STRINGS or any(not text for text in stop):
        return FieldViolation(
            "task.generate.stop", f"takes at most {MAX_STOP_STRINGS} texts, none of them empty"
        )
    return None


def softmax(scores: Floats) -> Floats:
    """Probabilities of the last axis."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Floats = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def classify_by_examples(
    texts: Floats, examples: Floats, labels: Sequence[str]
) -> tuple[list[str], Floats]:
    """Class names in order of first mention, and for each text their probabilities: softmax of
    cosines to class centroids.
    """
    names = list(dict.fromkeys(labels))
    centroids = np.stack(
        [examples[[label == name for label in labels]].mean(axis=0) for name in names]
    )
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return names, softmax((texts @ centroids.T) / np.float32(SOFTMAX_TEMPERATURE))


def best(
    probabilities: Sequence[float], names: Sequence[str], top_k: int
) -> list[tuple[str, float]]:
    """The `top_k` most probable names (0 means 1), best first; equal ones by name."""
    ranked = sorted(zip(names, probabilities, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return ranked[: max(1, top_k)]


def finite(values: Floats) -> bool:
    """True when no value is NaN or infinite."""
    return bool(math.isfinite(float(values.sum(dtype=np.float64)))) and bool(
        np.isfinite(values).all()
    )
