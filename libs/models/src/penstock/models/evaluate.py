"""How a quantised model differs from its original: cosine, neighbours, rank order, labels, and
whether an answer depends on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import Floats, TextModel


def cosines(a: Floats, b: Floats) -> Floats:
    """Cosine of each row of `a` with the same row of `b`."""
    norms: Floats = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result: Floats = ((a * b).sum(1) / np.maximum(norms, 1e-12)).astype(np.float32)
    return result


def neighbour_agreement(a: Floats, b: Floats) -> float:
    """Share of rows whose nearest other row is the same in both spaces."""

    def nearest(vectors: Floats) -> list[int]:
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -np.inf)
        return [int(index) for index in similarity.argmax(1)]

    return _share_equal(nearest(a), nearest(b))


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of the similarities of all pairs of rows: whether both spaces order the
    results of a search in the same way.
    """
    from scipy.stats import spearmanr

    above_diagonal = np.triu_indices(len(a), 1)
    ranks = spearmanr((a @ a.T)[above_diagonal], (b @ b.T)[above_diagonal])
    return float(ranks.statistic)


def compare_labelled(
    original: TextModel, quantised: TextModel, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy of both models on labelled texts, and how often they agree.

    A model with a classifier head predicts its own labels. For an encoder a logistic regression is
    trained on three quarters of the texts, one for each model as it would be in use, and judged on
    the others.

    Raises:
        BadModel: an encoder, and fewer than two labels to train on.
    """
    models = (original, quantised)
    if original.card.labels:
        predictions = [_predict(model, texts) for model in models]
        truth = list(labels)
    else:
        predictions, truth = _predict_by_trained_heads(models, texts, labels)
    accuracy_original, accuracy = (_share_equal(each, truth) for each in predictions)
    return {
        "accuracy_original": accuracy_original,
        "accuracy": accuracy,
        "accuracy_kept": accuracy / accuracy_original if accuracy_original else 0.0,
        "agreement": _share_equal(*predictions),
    }


def _predict(model: TextModel, texts: Sequence[str]) -> list[str]:
    return [model.card.labels[best] for best in model.embed(texts).argmax(1)]


def _predict_by_trained_heads(
    models: Sequence[TextModel], texts: Sequence[str], labels: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """Each model's predictions for every fourth text, and the true labels of these."""
    from sklearn.linear_model import LogisticRegression

    is_held_out = np.arange(len(texts)) % 4 == 0
    truth = np.array(labels)
    if len(set(truth[~is_held_out])) < 2:
        raise BadModel("labelled texts need at least two categories")
    predictions: list[list[str]] = []
    for model in models:
        vectors = model.embed(texts)
        head = LogisticRegression(max_iter=1000, C=10.0)
        head.fit(vectors[~is_held_out], truth[~is_held_out])
        predictions.append([str(label) for label in head.predict(vectors[is_held_out])])
    return predictions, [str(label) for label in truth[is_held_out]]


def _share_equal(a: Sequence[object], b: Sequence[object]) -> float:
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(b)


def batch_invariance(
    model: TextModel, texts: Sequence[str], size: int = 32, seed: int = 7
) -> float:
    """The lowest cosine between a text's vector alone and its vector in a batch of `size`; batches
    are random, and sorted by length.
    """
    alone = np.concatenate([model.embed([text]) for text in texts])
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(texts)), np.argsort([len(text) for text in texts])]
    lowest = 1.0
    for order in orders:
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            together = model.embed([texts[index] for index in indices])
            lowest = min(lowest, float(cosines(alone[indices], together).min()))
    return lowest


def compare(original: TextModel, quantised: TextModel, texts: Sequence[str]) -> dict[str, float]:
    """The figures of the card: mean and lowest cosine, agreement of nearest neighbours, rank
    correlation, and the independence of an answer from its batch.
    """
    a, b = original.embed(texts), quantised.embed(texts)
    pairs = cosines(a, b)
    return {
        "cosine_mean": float(pairs.mean()),
        "cosine_min": float(pairs.min()),
        "neighbour_agreement": neighbour_agreement(a, b),
        "spearman": spearman(a, b),
        "batch_invariance_cosine_min": batch_invariance(quantised, texts),
    }
