"""Comparison of a quantised model with the original: cosine, agreement of neighbours, and answers alone against answers in company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.onnx.encoder import Floats, TextModel

Pairs = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def cosines(a: Floats, b: Floats) -> Pairs:
    """Cosine of each row of `a` with the same row of `b`."""
    norms: Floats = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result: Pairs = ((a * b).sum(1) / np.maximum(norms, 1e-12)).astype(np.float32)
    return result


def neighbour_agreement(a: Floats, b: Floats) -> float:
    """Share of rows whose nearest other row is the same in both spaces."""

    def nearest(x: Floats) -> list[int]:
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        return [int(index) for index in similarity.argmax(1)]

    return sum(x == y for x, y in zip(nearest(a), nearest(b), strict=True)) / len(a)


def batch_invariance(model: TextModel, texts: Sequence[str], size: int = 32, seed: int = 7) -> float:
    """Least cosine between a text's vector alone and its vector among others, in random and in sorted batches of `size`."""
    alone = np.concatenate([model.embed([text]) for text in texts])
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(texts)), np.argsort([len(text) for text in texts])]
    least = 1.0
    for order in orders:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            together = model.embed([texts[index] for index in chosen])
            least = min(least, float(cosines(alone[chosen], together).min()))
    return least


def compare(original: TextModel, quantised: TextModel, texts: Sequence[str]) -> dict[str, float]:
    """Figures for the card: cosine mean and least, agreement of nearest neighbours, invariance to company."""
    a, b = original.embed(texts), quantised.embed(texts)
    pairs = cosines(a, b)
    return {
        "cosine_mean": float(pairs.mean()),
        "cosine_min": float(pairs.min()),
        "neighbour_agreement": neighbour_agreement(a, b),
        "batch_invariance_cosine_min": batch_invariance(quantised, texts),
    }
