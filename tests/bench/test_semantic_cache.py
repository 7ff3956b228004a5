"""The semantic cache's benchmark on generated requests: every figure that is judged is there, and
has an interval.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from penstock.bench.agent_replay.traffic.closed_answers import questions
from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.harness.intervals import bootstrap
from penstock.bench.harness.options import Options
from penstock.bench.semantic_cache.benchmark import BOUNDS
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.fitted_prior import fitted_prior
from penstock.bench.semantic_cache.jobs import (
    CHOSEN_ON,
    HELD_OUT,
    JUDGE_ERRORS,
    SEEDS,
    half_jobs,
    is_held_out,
    plain_jobs,
    variant_jobs,
    with_halves,
)
from penstock.bench.semantic_cache.stream import Outcome, ReplayedScope, run_stream
from penstock.bench.semantic_cache.streamed import noise_plot, streamed_figures
from penstock.bench.semantic_cache.young import Traffic, young_figures

WIDTH = 24
OPTIONS = Options()


def vector(text: str, answer: str) -> np.ndarray:
    """Near the vectors of the same answer."""
    rngs = [np.random.default_rng(zlib.crc32(each.encode())) for each in (answer, text)]
    found = rngs[0].normal(size=WIDTH) + 0.35 * rngs[1].normal(size=WIDTH)
    return np.asarray(found / np.linalg.norm(found), np.float32)


@pytest.fixture(scope="module")
def corpora() -> Iterator[dict[str, Corpus]]:
    found = {}
    for name in (BANKING77, CLINC150):
        rows = [each for each in questions(OPTIONS) if each.corpus == name]
        texts, answers = [each.text for each in rows], [each.answer["content"] for each in rows]
        vectors = np.array([vector(*pair) for pair in zip(texts, answers, strict=True)])
        found[name] = Corpus(texts, answers, vectors)
    yield found


def test_every_judged_figure_of_the_streams_has_an_interval(corpora: dict[str, Corpus]) -> None:
    corpora = with_halves(corpora)
    jobs = [*plain_jobs(quick=True), *half_jobs(), *variant_jobs()]
    jobs = [job for job in jobs if job.seed == SEEDS[0]]
    part = streamed_figures(corpora, {job: run_stream(corpora[job.corpus], job) for job in jobs})
    judged = {name for name in BOUNDS if "call_cut" in name or "precision" in name}
    assert judged <= set(part.figures)
    few = ("held_out", "chosen_on", "worst")  # fewer than six generated intents, one shuffle
    assert {name for name in part.figures if not name.startswith(few)} <= set(part.intervals)
    points = {len(x) for x, _ in noise_plot(part.figures).series.values()}
    assert points == {1 + len(JUDGE_ERRORS)}


def test_halves_share_no_intent(corpora: dict[str, Corpus]) -> None:
    halves = with_halves(corpora)
    chosen, held_out = set(halves[CHOSEN_ON].answers), set(halves[HELD_OUT].answers)
    assert not chosen & held_out
    assert chosen | held_out == set(corpora[BANKING77].answers)
    assert all(map(is_held_out, held_out))


def test_a_replay_counts_hits_errors_and_repeats(corpora: dict[str, Corpus]) -> None:
    traffic = Traffic(OPTIONS, corpora)
    replays = [traffic.replay(seed) for seed in (1, 2)]
    assert replays[0] == traffic.replay(1)
    assert replays[0] != replays[1]
    assert all(0 < replay.repeated <= replay.reused < replay.asked for replay in replays)
    figures = young_figures(replays)
    hits = sum(scope.hits for replay in replays for scope in replay.scopes)
    assert figures["young_hits"] == hits / 2
    assert set(bootstrap(replays * 3, young_figures, "replays")) == set(figures)


def test_a_scope_answers_equal_requests_without_a_decision() -> None:
    scope = ReplayedScope(WIDTH, 0.03, 1)
    one = vector("pay", "bill")
    assert scope.request("pay", one, "bill") is Outcome.CALLED
    assert scope.request("pay", one, "bill") is Outcome.EXACT
    assert scope.request("pay", one, "bill", reads_exact=False) is Outcome.CALLED
    assert len(scope.votes) == 2


def test_the_prior_is_fitted_on_votes_of_the_intents_that_constants_are_chosen_on(
    corpora: dict[str, Corpus],
) -> None:
    table = fitted_prior(with_halves(corpora)[CHOSEN_ON])
    assert len(table.rows) == 16
