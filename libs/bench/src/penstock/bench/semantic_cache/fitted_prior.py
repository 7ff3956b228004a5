"""The prior of the calibration's weights, fitted anew to compare the shipped one with it.

Requests of the intents on which constants are chosen are all called, so that the labels are of the
votes as they are, not of those that were not sure enough.
"""

from __future__ import annotations

import numpy as np
from penstock.bench.harness.report import Number, Table
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.jobs import CHOSEN_ON
from penstock.bench.semantic_cache.stream import Job, ReplayedScope, stream_order
from penstock.cache.semantic.calibration import fitted
from penstock.cache.semantic.weight_prior import SHIPPED, WeightPrior

SEEDS = (0, 1, 2, 3)
REQUESTS = 1_100
FIRST = 60
"""Requests before which too little is stored for votes to mean anything."""
MIN_SPREAD = 1e-3
"""A feature that varies less is not scaled."""


def fitted_prior(corpus: Corpus) -> Table:
    """Mean, spread and weight of each feature, beside the shipped weight; the last is the bias."""
    votes = [vote for seed in SEEDS for vote in _votes(corpus, seed)]
    features = np.array([features for features, _ in votes])
    is_right = np.array([right for _, right in votes])
    means, spreads = features.mean(axis=0), features.std(axis=0)
    spreads[spreads < MIN_SPREAD] = 1.0
    rows = np.column_stack([(features - means) / spreads, np.ones(len(features))])
    weights, _ = fitted(rows, is_right, WeightPrior.flat(features.shape[1]))
    cells: list[tuple[str | Number, ...]] = [
        (str(number), float(mean), float(spread), float(weight), float(shipped))
        for number, (mean, spread, weight, shipped) in enumerate(
            zip([*means, 0.0], [*spreads, 1.0], weights, SHIPPED.weights, strict=True)
        )
    ]
    columns = ("feature", "mean", "spread", "weight", "shipped weight")
    return Table(f"Prior of the weights, {len(votes):,} votes", columns, tuple(cells))


def _votes(corpus: Corpus, seed: int) -> list[tuple[tuple[float, ...], bool]]:
    """Features of the votes of one shuffle, none of them served, and whether they were right."""
    scope = ReplayedScope(corpus.vectors.shape[1], bound=0.0, seed=seed)
    for place in stream_order(corpus, Job(CHOSEN_ON, 0.0, seed))[:REQUESTS]:
        scope.request(
            corpus.texts[place], corpus.vectors[place], corpus.answers[place], reads_exact=False
        )
    return scope.votes[FIRST:]
