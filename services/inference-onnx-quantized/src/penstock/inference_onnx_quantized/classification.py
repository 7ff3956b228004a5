"""From a model's numbers to labels and scores: by its own head, or by labelled examples.

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


@pure
def cosines(vector: Floats, others: Floats) -> Floats:
    """The cosine of a vector, shape (dimension,), with each row of others; 0 for a zero vector."""
    norms = np.linalg.norm(others, axis=1) * np.linalg.norm(vector)
    result: Floats = (others @ vector / np.maximum(norms, 1e-12)).astype(np.float32)
    return result


def relevance(outputs: Floats) -> Floats:
    """The probability that each pair of texts belongs together, shape (pairs,).

    Args:
        outputs: of a model of pairs, shape (pairs, 1), a logit; or (pairs, 2), the logits of "does
            not" and "does".

    Raises:
        ValueError: another shape.
    """
    if outputs.shape[1] == 1:
        # The logistic function, in a form that does not overflow.
        return (0.5 + 0.5 * np.tanh(outputs[:, 0] / 2)).astype(np.float32)
    if outputs.shape[1] == 2:
        return softmax(outputs)[:, 1]
    raise ValueError(f"a model of pairs gives 1 or 2 numbers a pair, not {outputs.shape[1]}")
