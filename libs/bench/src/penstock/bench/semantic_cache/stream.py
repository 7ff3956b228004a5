"""One shuffled stream of requests from a cold start.

Through the serving code's own decision, and through a constant threshold.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from penstock.bench.semantic_cache.constants import SHIPPED, Constants, in_force
from penstock.bench.semantic_cache.data import Corpus
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.decision import NEIGHBOURS, Neighbour, SemanticPolicy
from penstock.cache.semantic.index import VectorIndex
from penstock.stack.plan import SINGLE_THREADED_LIBRARIES

WINDOW = 1_000
AUDIT_SEED_OFFSET = 999


class Hit(NamedTuple):
    """A request that was answered from the cache: its number in the stream, if rightly, and the
    answer that would have been right.
    """

    number: int
    right: bool
    answer: str


@dataclass
class StreamResult:
    """What became of a stream.

    Attributes:
        requests: their number.
        hits: in order.
        decisions_s: seconds spent in deciding and learning, by request that was decided.
        scope: the decision's state at the end.
        index: the vectors of the stored requests.
        stored: answer and text of each stored request.
    """

    requests: int
    hits: list[Hit]
    decisions_s: list[float]
    scope: SemanticPolicy | None
    index: VectorIndex | None
    stored: list[tuple[int, str]]

    @property
    def cut(self) -> float:
        """Share of the calls that were saved."""
        return len(self.hits) / self.requests

    @property
    def precision(self) -> float:
        """Share of the hits that were right."""
        return sum(hit.right for hit in self.hits) / max(1, len(self.hits))

    def worst_error_ratio(self, bound: float) -> float:
        """The largest share of wrong hits in disjoint windows of 1,000 hits, over the bound."""
        rights = [hit.right for hit in self.hits]
        starts = range(0, len(rights) - WINDOW + 1, WINDOW)
        errors = (1 - sum(rights[start : start + WINDOW]) / WINDOW for start in starts)
        return max(errors, default=0.0) / bound

    def early_hit_share(self) -> float:
        """Share of hits in the first 1,000 requests."""
        return sum(hit.number < WINDOW for hit in self.hits) / WINDOW


@dataclass(frozen=True)
class Job:
    """One stream to run.

    Attributes:
        corpus: name of the corpus.
        bound: share of wrong hits to stay below.
        seed: of the shuffle.
        zipf: exponent with which requests are repeated by rank; 0: each comes once.
        judge_errors: share of the labels that are wrong, of calls and of audits.
        constants: with which the decision runs.
    """

    corpus: str
    bound: float
    seed: int
    zipf: float = 0.0
    judge_errors: float = 0.0
    constants: Constants = SHIPPED

    @property
    def variant(self) -> str:
        """How the names of its figures end: by its bound, repetition and label errors."""
        zipf = "_zipf" if self.zipf else ""
        judge = f"_judge_{round(self.judge_errors * 100)}" if self.judge_errors else ""
        return f"{round(self.bound * 100):02d}{zipf}{judge}"


def run_stream(corpus: Corpus, job: Job) -> StreamResult:
    """Run one stream from a cold start."""
    with in_force(job.constants):
        stream = _Stream(corpus, job)
        for number, position in enumerate(stream.order):
            stream.request(number, position)
    return stream.result()


def stream_order(corpus: Corpus, job: Job) -> list[int]:
    """The positions of a stream's requests in the corpus, in the order in which they come."""
    rng = random.Random(job.seed)
    order = list(range(len(corpus.texts)))
    rng.shuffle(order)
    if not job.zipf:
        return order
    weights = [1 / (rank + 1) ** job.zipf for rank in range(len(order))]
    return rng.choices(order, weights, k=len(order))


class _Stream:
    """The state of a running stream."""

    def __init__(self, corpus: Corpus, job: Job) -> None:
        width = corpus.vectors.shape[1]
        self._corpus = corpus
        self._job = job
        self._audit = random.Random(job.seed + AUDIT_SEED_OFFSET)
        self._scope = SemanticPolicy(width, job.bound)
        self._index = VectorIndex(width)
        self._answer_ids: dict[str, int] = {}
        self._stored: list[tuple[int, str]] = []
        self._exact: dict[str, int] = {}
        self._hits: list[Hit] = []
        self._decisions_s: list[float] = []
        self.order = stream_order(corpus, job)

    def request(self, number: int, position: int) -> None:
        """Answer one request from the cache, or call and learn."""
        text = self._corpus.texts[position]
        vector = self._corpus.vectors[position]
        answer = self._corpus.answers[position]
        truth = self._answer_ids.setdefault(answer, len(self._answer_ids))
        if self._job.zipf and text in self._exact:
            self._hits.append(Hit(number, self._exact[text] == truth, answer))
            return
        near = [
            Neighbour(place, self._stored[place][0], similarity, self._stored[place][1])
            for place, similarity in self._index.search(vector, NEIGHBOURS)
        ]
        began_s = time.perf_counter()
        decision = self._scope.decide(vector, text, near, self._audit)
        if decision.serve:
            self._hits.append(Hit(number, decision.answer_class == truth, answer))
        else:
            label = self._judged(truth)
            self._scope.learn(vector, text, label, decision)
        self._decisions_s.append(time.perf_counter() - began_s)
        if not decision.serve:
            self._index.add(len(self._stored), vector)
            self._stored.append((label, text))
            self._exact[text] = truth

    def _judged(self, truth: int) -> int:
        """The judge's label for an answer: the true one, or a random one where it errs."""
        if self._audit.random() >= self._job.judge_errors:
            return truth
        return self._audit.randrange(len(self._answer_ids))

    def result(self) -> StreamResult:
        """What became of the stream."""
        return StreamResult(
            len(self.order), self._hits, self._decisions_s, self._scope, self._index, self._stored
        )


def shuffled_similarities(corpus: Corpus, seed: int) -> tuple[Floats, list[str]]:
    """Similarities between all requests of a shuffle, in its order, and their answers."""
    order = list(range(len(corpus.texts)))
    random.Random(seed).shuffle(order)
    vectors = corpus.vectors[order]
    return vectors @ vectors.T, [corpus.answers[position] for position in order]


def constant_threshold(similarities: Floats, answers: Sequence[str], threshold: float) -> list[Hit]:
    """The hits where the nearest stored request answers from this cosine on."""
    stored = np.zeros(len(answers), np.int64)
    count = 0
    hits: list[Hit] = []
    for position, answer in enumerate(answers):
        row = similarities[position, stored[:count]]
        best = int(row.argmax()) if count else -1
        if best >= 0 and row[best] >= threshold:
            hits.append(Hit(position, answers[stored[best]] == answer, answer))
        else:
            stored[count] = position
            count += 1
    return hits


def run_streams(corpora: Mapping[str, Corpus], jobs: Sequence[Job]) -> dict[Job, StreamResult]:
    """Run streams in a process for each core; the results have no scope and no index."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(os.cpu_count(), context, _keep_corpora, (dict(corpora),))
    with _libraries_as_in_services(), pool:
        return dict(zip(jobs, pool.map(_run_job, jobs), strict=True))


@contextmanager
def _libraries_as_in_services() -> Iterator[None]:
    """Libraries of processes that start meanwhile have one thread each, as those of services; with
    a thread for each core in each process, most of the time is spent in waiting for each other.
    """
    before = dict(os.environ)
    os.environ.update(SINGLE_THREADED_LIBRARIES)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


_corpora: dict[str, Corpus] = {}
"""The corpora of a worker process."""


def _keep_corpora(corpora: dict[str, Corpus]) -> None:
    _corpora.update(corpora)


def _run_job(job: Job) -> StreamResult:
    result = run_stream(_corpora[job.corpus], job)
    return replace(result, scope=None, index=None, stored=[])
