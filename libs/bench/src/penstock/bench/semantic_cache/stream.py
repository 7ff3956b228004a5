"""One shuffled stream from a cold start through the serving code's own decision, and through a
constant threshold.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from penstock.bench.semantic_cache.data import Corpus
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour, SemanticPolicy
from penstock.cache.semantic.index import VectorIndex

WINDOW = 1_000


@dataclass
class Outcome:
    """What one stream came to."""

    requests: int
    hits: list[tuple[int, bool]]
    decision_s: float
    scope: SemanticPolicy | None
    index: VectorIndex | None
    kept: list[tuple[int, str]]

    @property
    def cut(self) -> float:
        return len(self.hits) / self.requests

    @property
    def precision(self) -> float:
        return sum(right for _, right in self.hits) / max(1, len(self.hits))

    def worst(self, bound: float) -> float:
        """Largest error of disjoint windows of hits, in bounds."""
        rights = [right for _, right in self.hits]
        spans = range(0, len(rights) - WINDOW + 1, WINDOW)
        return (
            max((1 - sum(rights[at : at + WINDOW]) / WINDOW for at in spans), default=0.0) / bound
        )

    def early(self) -> float:
        """Hits in the first thousand requests, as a share."""
        return sum(number < 1_000 for number, _ in self.hits) / 1_000


def stream(
    corpus: Corpus, bound: float, seed: int, zipf: float = 0.0, judge_errs: float = 0.0
) -> Outcome:
    """One shuffled stream from a cold start.

    `zipf`: repeat by rank with this exponent; `judge_errs`: share of labels that are wrong.
    """
    rng, audit = random.Random(seed), random.Random(seed + 999)
    order = list(range(len(corpus.texts)))
    rng.shuffle(order)
    if zipf:
        weights = [1 / (rank + 1) ** zipf for rank in range(len(order))]
        order = rng.choices(order, weights, k=len(order))
    scope, index = (
        SemanticPolicy(corpus.vectors.shape[1], bound),
        VectorIndex(corpus.vectors.shape[1]),
    )
    ids: dict[str, int] = {}
    kept: list[tuple[int, str]] = []
    exact: dict[str, int] = {}
    hits: list[tuple[int, bool]] = []
    spent = 0.0
    for number, at in enumerate(order):
        text, vector = corpus.texts[at], corpus.vectors[at]
        truth = ids.setdefault(corpus.answers[at], len(ids))
        if zipf and text in exact:
            hits.append((number, exact[text] == truth))
            continue
        near = [
            Neighbour(place, kept[place][0], value, kept[place][1])
            for place, value in index.search(vector, NEIGHBOURS)
        ]
        began = time.perf_counter()
        decision = scope.decide(vector, text, near, audit)
        if decision.serve:
            hits.append((number, decision.answer_class == truth))
        else:
            label = truth if audit.random() >= judge_errs else audit.randrange(len(ids))
            scope.learn(vector, text, label, decision)
        spent += time.perf_counter() - began
        if not decision.serve:
            index.add(len(kept), vector)
            kept.append((label, text))
            exact[text] = truth
    return Outcome(len(order), hits, spent, scope, index, kept)


def ordered(corpus: Corpus, seed: int) -> tuple[Floats, list[str]]:
    """Similarities between all requests of a shuffle, in its order, and their answers."""
    order = list(range(len(corpus.texts)))
    random.Random(seed).shuffle(order)
    vectors = corpus.vectors[order]
    return vectors @ vectors.T, [corpus.answers[at] for at in order]


def constant(similar: Floats, answers: Sequence[str], threshold: float) -> tuple[float, float]:
    """Cut and precision where the nearest called request answers from this cosine on."""
    called, count, hits = np.zeros(len(answers), np.int64), 0, list[bool]()
    for at, answer in enumerate(answers):
        row = similar[at, called[:count]]
        best = int(row.argmax()) if count else -1
        if best >= 0 and row[best] >= threshold:
            hits.append(answers[called[best]] == answer)
        else:
            called[count] = at
            count += 1
    return len(hits) / len(answers), sum(hits) / max(1, len(hits))


@dataclass(frozen=True)
class Job:
    """One stream to run: over which corpus, at which bound, in which shuffle, with which traffic
    and judge.
    """

    corpus: str
    bound: float
    seed: int
    zipf: float = 0.0
    judge_errs: float = 0.0


def streams(corpora: dict[str, Corpus], jobs: Sequence[Job]) -> dict[Job, Outcome]:
    """What each stream came to, without its scope; a process for each core."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawned, _hold, (corpora,)) as pool:
        return dict(zip(jobs, pool.map(_ran, jobs), strict=True))


_corpora: dict[str, Corpus] = {}


def _hold(corpora: dict[str, Corpus]) -> None:
    _corpora.update(corpora)


def _ran(job: Job) -> Outcome:
    one = stream(_corpora[job.corpus], job.bound, job.seed, job.zipf, job.judge_errs)
    return replace(one, scope=None, index=None, kept=[])
