"""Figures of streams and their intervals over intents: requests of one intent are alike, and what a
cache can save depends on which intents there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.bench.harness.intervals import Interval, bootstrap, of_share
from penstock.bench.harness.report import Table
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.stream import (
    WINDOW,
    Hit,
    Job,
    StreamResult,
    constant_threshold,
    shuffled_similarities,
    stream_order,
)

Array = NDArray[np.float64]
THRESHOLDS: tuple[float, ...] = tuple(np.arange(0.70, 0.985, 0.01).round(2).tolist())
"""Constant cosines that the decision is compared with."""


@dataclass(frozen=True)
class Intent:
    """What became of the requests of one intent.

    Attributes:
        streams: by variant, over all its shuffles: requests, hits, right hits, early requests,
            early hits.
        static: by constant threshold: requests, hits, right hits; none where not compared.
    """

    streams: Mapping[str, Array]
    static: Array


def intents_of(
    corpus: Corpus, streams: Mapping[Job, StreamResult], compared: Sequence[int] = ()
) -> list[Intent]:
    """The intents of a corpus.

    Args:
        corpus: what was shuffled.
        streams: all of this corpus.
        compared: shuffles on which constant thresholds are tried.
    """
    intents = sorted(set(corpus.answers))
    counts: dict[str, dict[str, Array]] = {}
    for job, result in streams.items():
        of_variant = counts.setdefault(job.variant, {each: np.zeros(5) for each in intents})
        _count_stream(of_variant, corpus, job, result)
    static = _static_counts(corpus, compared)
    return [
        Intent({variant: each[intent] for variant, each in counts.items()}, static[intent])
        for intent in intents
    ]


def _count_stream(
    counts: Mapping[str, Array], corpus: Corpus, job: Job, result: StreamResult
) -> None:
    for number, position in enumerate(stream_order(corpus, job)):
        counts[corpus.answers[position]] += (1, 0, 0, number < WINDOW, 0)
    for hit in result.hits:
        counts[hit.answer] += (0, 1, hit.right, 0, hit.number < WINDOW)


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
    """Cut and precision of each variant, over all its shuffles together; no precision without a
    hit.
    """
    found: dict[str, float] = {}
    for variant in intents[0].streams:
        requests, hits, rights, _, _ = _sum(intents, variant)
        found[f"call_cut_{variant}"] = hits / requests
        if hits:
            found[f"hit_precision_{variant}"] = rights / hits
    return found


def stream_intervals(intents: Sequence[Intent], draws: int) -> dict[str, Interval]:
    """Intervals of the same over intents; where all hits were right, over hits."""
    found = bootstrap(intents, stream_figures, "intents", draws)
    for variant in intents[0].streams:
        _, hits, rights, _, _ = _sum(intents, variant)
        if 0 < hits == rights:
            found[f"hit_precision_{variant}"] = of_share(int(rights), int(hits), "hits")
    return found


def first_hits(intents: Sequence[Intent], variant: str) -> float:
    """The share of hits among the first requests of the streams."""
    _, _, _, early, early_hits = _sum(intents, variant)
    return early_hits / max(1.0, early)


def errors_per_request(intents: Sequence[Intent], variant: str) -> float:
    """Wrong hits for each request."""
    requests, hits, rights, _, _ = _sum(intents, variant)
    return (hits - rights) / requests


def gain_figures(intents: Sequence[Intent], variant: str) -> dict[str, float]:
    """A variant's cut over that of the best constant threshold as precise as it, in hindsight."""
    requests, hits, rights, _, _ = _sum(intents, variant)
    static = np.sum([intent.static for intent in intents], axis=0)
    precisions = static[:, 2] / np.maximum(1.0, static[:, 1])
    as_precise = precisions >= rights / max(1.0, hits)
    cuts = static[:, 1] / np.maximum(1.0, static[:, 0])
    best = float(cuts[as_precise].max()) if as_precise.any() else 0.0
    return {
        "static_call_cut_same_precision": best,
        "gain_vs_static": hits / requests / max(best, 1e-6),
    }


def _sum(intents: Sequence[Intent], variant: str) -> tuple[float, ...]:
    return tuple(np.sum([intent.streams[variant] for intent in intents], axis=0).tolist())


def constant_thresholds(intents: Sequence[Intent]) -> Table:
    """Cut and precision of every constant threshold."""
    static = np.sum([intent.static for intent in intents], axis=0)
    rows = tuple(
        (threshold, hits / max(1.0, requests), rights / max(1.0, hits))
        for threshold, (requests, hits, rights) in zip(THRESHOLDS, static.tolist(), strict=True)
    )
    return Table("Constant thresholds", ("cosine", "cut", "precision"), rows)
