"""From a model's numbers to labels: by its own classifier head, or by labelled examples.

Plain values and arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.onnx.encoder import Floats
from penstock.service.purity import pure

SOFTMAX_TEMPERATURE = 0.07
"""Divides cosines before the softmax over classes; the value that sentence encoders are commonly
trained with.
"""


def softmax(scores: Floats) -> Floats:
    """Probabilities along the last axis."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities: Floats = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities


@pure
def classify_by_examples(
    texts: Floats, examples: Floats, labels: Sequence[str]
) -> tuple[list[str], Floats]:
    """The labels in order of first mention, and for each text their probabilities.

    A probability is the softmax of the cosines between the text's embedding and the mean embedding
    of each label's examples.

    Args:
        texts: unit embeddings, shape (texts, dimension).
        examples: unit embeddings, shape (examples, dimension).
        labels: the label of each example.
    """
    names = list(dict.fromkeys(labels))
    centroids = np.stack(
        [examples[[label == name for label in labels]].mean(axis=0) for name in names]
    )
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    return names, softmax((texts @ centroids.T) / np.float32(SOFTMAX_TEMPERATURE))


@pure
def top_labels(
    probabilities: Sequence[float], labels: Sequence[str], top_k: int
) -> list[tuple[str, float]]:
    """The `top_k` most probable labels (0 means 1), best first; equal ones by name."""
    ranked = sorted(zip(labels, probabilities, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return ranked[: max(1, top_k)]


def all_finite(values: Floats) -> bool:
    """True when no value is NaN or infinite."""
    return bool(np.isfinite(values).all())
