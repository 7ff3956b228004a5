"""Comparison of a quantised model with the original: cosine, agreement of neighbours, and answers
alone against answers in company.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import Floats, TextModel

Pairs = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def cosines(a: Floats, b: Floats) -> Pairs:
    """Cosine of each row of `a` with the same row of `b`."""
    norms: Floats = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result: Pairs = ((a * b).sum(1) / np.maximum(norms, 1e-12)).astype(np.float32)
    return result


def nearest_neighbour_agreement(a: Floats, b: Floats) -> float:
    """Share of rows whose nearest other row is the same in both spaces."""

    def nearest(x: Floats) -> list[int]:
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        return [int(index) for index in similarity.argmax(1)]

    return sum(x == y for x, y in zip(nearest(a), nearest(b), strict=True)) / len(a)


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of the similarities of all pairs of rows: whether both spaces order a search
    the same way.
    """
    from scipy.stats import spearmanr

    above = np.triu_indices(len(a), 1)
    ranks = spearmanr((a @ a.T)[above], (b @ b.T)[above])
    return float(ranks.statistic)


def labelled(
    original: TextModel, quantised: TextModel, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy of both on labelled texts, and how often they say the same.

    A model with labels of its own says them; an encoder gets a logistic regression on three
    quarters of the texts, one for each side, as it would in use, and is judged on the others.
    """
    if original.card.labels:
        said = [
            [side.card.labels[best] for best in side.embed(texts).argmax(1)]
            for side in (original, quantised)
        ]
        truth = list(labels)
    else:
        said, truth = _by_own_heads((original, quantised), texts, labels)
    right = [sum(x == y for x, y in zip(side, truth, strict=True)) / len(truth) for side in said]
    same = sum(x == y for x, y in zip(*said, strict=True)) / len(truth)
    kept = right[1] / right[0] if right[0] else 0.0
    return {
        "accuracy_original": right[0],
        "accuracy": right[1],
        "accuracy_kept": kept,
        "agreement": same,
    }


def _by_own_heads(
    models: Sequence[TextModel], texts: Sequence[str], labels: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    from sklearn.linear_model import LogisticRegression

    held = np.arange(len(texts)) % 4 == 0
    names = np.array(labels)
    if len(set(names[~held])) < 2:
        raise BadModel("labelled texts need at least two categories")
    said: list[list[str]] = []
    for model in models:
        vectors = model.embed(texts)
        head = LogisticRegression(max_iter=1000, C=10.0).fit(vectors[~held], names[~held])
        said.append([str(name) for name in head.predict(vectors[held])])
    return said, [str(name) for name in names[held]]


def batch_invariance(
    model: TextModel, texts: Sequence[str], size: int = 32, seed: int = 7
) -> float:
    """Least cosine between a text's vector alone and its vector among others, in random and in
    sorted batches of `size`.
    """
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
    """Figures for the card: cosine mean and least, agreement of nearest neighbours, invariance to
    company.
    """
    a, b = original.embed(texts), quantised.embed(texts)
    pairs = cosines(a, b)
    return {
        "cosine_mean": float(pairs.mean()),
        "cosine_min": float(pairs.min()),
        "neighbour_agreement": nearest_neighbour_agreement(a, b),
        "spearman": spearman(a, b),
        "batch_invariance_cosine_min": batch_invariance(quantised, texts),
    }
