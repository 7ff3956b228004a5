"""Figures of streams and their intervals over intents: requests of one intent are alike, and what a
cache can save depends on which intents there are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.bench.harness.report import Table
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.stream import (
    WINDOW,
    Hit,
    StreamResult,
    constant_threshold,
    shuffled_similarities,
)

Array = NDArray[np.float64]
THRESHOLDS: tuple[float, ...] = tuple(np.arange(0.70, 0.985, 0.01).round(2).tolist())
"""Constant cosines that the decision is compared with."""
Results = Mapping[float, Mapping[int, StreamResult]]
"""Results of one corpus by bound, and then by shuffle."""


@dataclass(frozen=True)
class Intent:
    """What became of the requests of one intent, over all shuffles.

    Attributes:
        streams: by bound: requests, hits, right hits, early requests, early hits.
        static: by constant threshold: requests, hits, right hits; none where not compared.
    """

    streams: Mapping[float, Array]
    static: Array


def intents_of(corpus: Corpus, results: Results, compared: Sequence[int]) -> list[Intent]:
    """The intents of a corpus.

    Args:
        corpus: what was shuffled.
        results: of the streams.
        compared: shuffles on which constant thresholds are tried.
    """
    counts = {bound: _stream_counts(corpus, by_seed) for bound, by_seed in results.items()}
    static = _static_counts(corpus, compared)
    return [
        Intent({bound: each[intent] for bound, each in counts.items()}, static[intent])
        for intent in sorted(set(corpus.answers))
    ]


def _stream_counts(corpus: Corpus, by_seed: Mapping[int, StreamResult]) -> dict[str, Array]:
    counts = {intent: np.zeros(5) for intent in set(corpus.answers)}
    for seed, result in by_seed.items():
        order = list(range(len(corpus.texts)))
        random.Random(seed).shuffle(order)
        for number, position in enumerate(order):
            counts[corpus.answers[position]] += (1, 0, 0, number < WINDOW, 0)
        for hit in result.hits:
            counts[hit.answer] += (0, 1, hit.right, 0, hit.number < WINDOW)
    return counts


def _static_counts(corpus: Corpus, seeds: Sequence[int]) -> dict[str, Array]:
    requests = Counter(corpus.answers)
    counts = {intent: np.zeros((len(THRESHOLDS), 3)) for intent in requests}
    for seed in seeds:
        similarities, answers = shuffled_similarities(corpus, seed)
        for intent, count in requests.items():
            counts[intent][:, 0] += count
        for place, threshold in enumerate(THRESHOLDS):
            _count(counts, place, constant_threshold(similarities, answers, threshold))
    return counts


def _count(counts: Mapping[str, Array], place: int, hits: Sequence[Hit]) -> None:
    for hit in hits:
        counts[hit.answer][place] += (0, 1, hit.right)


def stream_figures(intents: Sequence[Intent]) -> dict[str, float]:
    """Cut and precision at each bound, over all shuffles together."""
    found: dict[str, float] = {}
    for bound in intents[0].streams:
        suffix = f"{round(bound * 100):02d}"
        requests, hits, rights, early, early_hits = _sum(intents, bound)
        found[f"call_cut_{suffix}"] = hits / requests
        found[f"hit_precision_{suffix}"] = rights / max(1.0, hits)
        found[f"errors_per_request_{suffix}"] = (hits - rights) / requests
        found[f"first_1000_hits_{suffix}"] = early_hits / max(1.0, early)
    return found


def gain_figures(intents: Sequence[Intent]) -> dict[str, float]:
    """The cut at the loosest bound over that of the best constant threshold which is as precise, in
    hindsight.
    """
    _, hits, rights, _, _ = _sum(intents, max(intents[0].streams))
    static = np.sum([intent.static for intent in intents], axis=0)
    precisions = static[:, 2] / np.maximum(1.0, static[:, 1])
    as_precise = precisions >= rights / max(1.0, hits)
    cuts = static[:, 1] / np.maximum(1.0, static[:, 0])
    best = float(cuts[as_precise].max()) if as_precise.any() else 0.0
    ours = stream_figures(intents)[f"call_cut_{round(max(intents[0].streams) * 100):02d}"]
    return {
        "static_call_cut_same_precision": best,
        "gain_vs_static": ours / max(best, 1e-6),
    }


def _sum(intents: Sequence[Intent], bound: float) -> tuple[float, ...]:
    return tuple(np.sum([intent.streams[bound] for intent in intents], axis=0).tolist())


def constant_thresholds(intents: Sequence[Intent]) -> Table:
    """Cut and precision of every constant threshold."""
    static = np.sum([intent.static for intent in intents], axis=0)
    rows = tuple(
        (threshold, hits / max(1.0, requests), rights / max(1.0, hits))
        for threshold, (requests, hits, rights) in zip(THRESHOLDS, static.tolist(), strict=True)
    )
    return Table("Constant thresholds", ("cosine", "cut", "precision"), rows)
