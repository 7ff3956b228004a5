"""Young scopes: the closed answers of `agent-replay`, decided without a wire, over many draws.

Each replay draws the same numbers of requests, with the same exponents of repetition, as the
workloads of `agent-replay`, from another order of the questions. Its scopes start cold and end
after a few hundred to a few thousand calls, so that a bound which holds on average only is missed
here in half of the cases.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from penstock.bench.agent_replay.players.workloads import CLOSED, FULL, GATEWAYS, ZIPFS
from penstock.bench.agent_replay.traffic.closed_answers import drawn_places, questions
from penstock.bench.harness.intervals import bootstrap, of_share
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Part
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.stream import Outcome, ReplayedScope
from penstock.cache.semantic.classes import Floats

BOUND = 0.03
REPORTED = tuple(range(300, 324))
DEVELOPMENT = tuple(range(100, 124))
"""Seeds on which settings may be chosen; none of them is reported."""
WORKLOADS = {
    name: (zipf, FULL.compared if name == CLOSED else FULL.closed) for name, zipf in ZIPFS.items()
} | {GATEWAYS: (ZIPFS[CLOSED], FULL.closed)}
"""By name: the exponent of repetition, and how many requests are drawn."""


class Request(NamedTuple):
    """A request with a closed answer; `vector` is -1 where answers are never kept."""

    corpus: str
    text: str
    answer: str
    vector: int


@dataclass(frozen=True)
class Scope:
    """How many answers a scope has served by similarity, and how many of these were wrong."""

    hits: int
    wrong: int


@dataclass(frozen=True)
class Replay:
    """What became of one replay.

    Attributes:
        scopes: of all workloads.
        asked: requests of the workload that `agent-replay` compares.
        repeated: of these, asked before in the same words.
        reused: of these, answered from the cache.
    """

    scopes: tuple[Scope, ...]
    asked: int
    repeated: int
    reused: int


class Traffic:
    """All questions with their vectors; a replay for each seed."""

    def __init__(self, options: Options, corpora: Mapping[str, Corpus]) -> None:
        self._vectors = np.concatenate([corpus.vectors for corpus in corpora.values()])
        texts = [(name, text) for name, corpus in corpora.items() for text in corpus.texts]
        places = {key: place for place, key in enumerate(texts)}
        self._options = options
        self._places = places

    def requests(self, seed: int) -> list[Request]:
        """The questions in the order of a seed, the most often asked first."""
        return [
            Request(
                each.corpus,
                each.text,
                str(each.answer["content"]),
                self._places.get((each.corpus, each.text), -1),
            )
            for each in questions(self._options, seed)
        ]

    def replay(self, seed: int) -> Replay:
        """Play all workloads once."""
        requests = self.requests(seed)
        scopes: list[Scope] = []
        compared = (0, 0, 0)
        for name, (zipf, wanted) in WORKLOADS.items():
            count = min(wanted, len(requests))
            chosen = [requests[at] for at in drawn_places(len(requests), count, zipf, seed)]
            outcomes = _outcomes(chosen, self._vectors, seed)
            scopes += _scopes(chosen, outcomes)
            if name == CLOSED:
                reused = sum(outcome is not Outcome.CALLED for outcome in outcomes)
                compared = (count, count - len({each[:2] for each in chosen}), reused)
        return Replay(tuple(scopes), *compared)


def _outcomes(requests: Sequence[Request], vectors: Floats, seed: int) -> list[Outcome]:
    scopes: dict[str, ReplayedScope] = {}
    outcomes = []
    for request in requests:
        if request.vector < 0:
            outcomes.append(Outcome.CALLED)
            continue
        if request.corpus not in scopes:
            scopes[request.corpus] = ReplayedScope(vectors.shape[1], BOUND, seed)
        scope = scopes[request.corpus]
        outcomes.append(scope.request(request.text, vectors[request.vector], request.answer))
    return outcomes


def _scopes(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> list[Scope]:
    found: dict[str, list[Outcome]] = {}
    for request, outcome in zip(requests, outcomes, strict=True):
        if outcome in (Outcome.RIGHT_HIT, Outcome.WRONG_HIT):
            found.setdefault(request.corpus, []).append(outcome)
    return [Scope(len(each), each.count(Outcome.WRONG_HIT)) for each in found.values()]


def young_figures(replays: Sequence[Replay]) -> dict[str, float]:
    """Figures of all these replays together.

    `young_scopes_over_bound` is the share of scopes whose errors exceeded the bound at their end;
    `young_replays_within` that of the replays whose interval of wrong answers, all scopes pooled,
    lies within the bound.
    """
    scopes = [scope for replay in replays for scope in replay.scopes]
    hits, wrong = sum(scope.hits for scope in scopes), sum(scope.wrong for scope in scopes)
    asked = sum(replay.asked for replay in replays)
    gained = sum(replay.reused - replay.repeated for replay in replays)
    return {
        "young_hits": hits / len(replays),
        "young_wrong_to_bound": wrong / max(1, hits) / BOUND,
        "young_scopes_over_bound": sum(scope.wrong > BOUND * scope.hits for scope in scopes)
        / max(1, len(scopes)),
        "young_replays_within": sum(map(_is_within, replays)) / len(replays),
        "young_gain_over_exact": gained / asked,
    }


def _is_within(replay: Replay) -> bool:
    hits = sum(scope.hits for scope in replay.scopes)
    wrong = sum(scope.wrong for scope in replay.scopes)
    return hits > 0 and of_share(wrong, hits, "hits").high <= BOUND


def measure_young(options: Options, corpora: Mapping[str, Corpus], seeds: Sequence[int]) -> Part:
    """The replays of some seeds, a process for each core."""
    replays = run_replays(Traffic(options, corpora), seeds)
    intervals = bootstrap(replays, young_figures, "replays")
    return Part(young_figures(replays), intervals=intervals)


def run_replays(traffic: Traffic, seeds: Sequence[int]) -> list[Replay]:
    """The replays of these seeds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _keep_traffic, (traffic,)) as pool:
        return list(pool.map(_replay, seeds))


_traffic: list[Traffic] = []
"""Of a worker process."""


def _keep_traffic(traffic: Traffic) -> None:
    _traffic[:] = [traffic]


def _replay(seed: int) -> Replay:
    return _traffic[0].replay(seed)
