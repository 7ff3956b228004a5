"""The semantic cache's benchmark on generated requests: what is chosen is chosen on other intents
than it is reported on, and every figure that is judged has an interval.
"""

from __future__ import annotations

import json
import math
import zlib

import numpy as np
import pytest
from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.harness.parts import Part
from penstock.bench.semantic_cache.benchmark import BOUNDS
from penstock.bench.semantic_cache.constants import (
    CANDIDATES,
    SHIPPED,
    Constants,
    Outcome,
    best,
    in_force,
)
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.held_out import held_out_figures
from penstock.bench.semantic_cache.intents import Intent, stream_figures, stream_intervals
from penstock.bench.semantic_cache.jobs import (
    ANEW_SEEDS,
    CHOICE_SEEDS,
    HALVES,
    JUDGE_ERRORS,
    anew_jobs,
    choice_jobs,
    half_of,
    shipped_jobs,
    with_halves,
)
from penstock.bench.semantic_cache.noise import noise_plot, noise_table
from penstock.bench.semantic_cache.probes import Probe, trap_intervals
from penstock.bench.semantic_cache.stream import Hit, Job, StreamResult, run_stream
from penstock.bench.semantic_cache.streamed import streamed_figures
from penstock.bench.semantic_cache.traps import Pair
from penstock.cache.semantic import threshold

WIDTH = 24
INTENTS = 24
FORMS = 24
STRICTER, LOOSER = CANDIDATES[:2]


def vector(*seeds: str) -> np.ndarray:
    """Near the vectors of texts with the same first seed."""
    about, wording = (np.random.default_rng(zlib.crc32(each.encode())) for each in seeds)
    found = about.normal(size=WIDTH) + 0.35 * wording.normal(size=WIDTH)
    return np.asarray(found / np.linalg.norm(found), np.float32)


def corpus(name: str) -> Corpus:
    rows = [(f"{name} intent {row % INTENTS}", f"form {row}") for row in range(INTENTS * FORMS)]
    vectors = np.array([vector(*row) for row in rows])
    return Corpus([text for _, text in rows], [intent for intent, _ in rows], vectors)


def result(cut: float) -> StreamResult:
    """A stream whose hits were all right."""
    hits = [Hit(number, True, "") for number in range(round(cut * 100))]
    return StreamResult(100, hits, [], None, None, [])


@pytest.fixture(scope="module")
def corpora() -> dict[str, Corpus]:
    return with_halves({name: corpus(name) for name in (BANKING77, CLINC150)})


def test_halves_share_no_intent(corpora: dict[str, Corpus]) -> None:
    first, second = (set(corpora[half].answers) for half in HALVES)
    assert not first & second
    assert first | second == set(corpora[BANKING77].answers)
    assert {half_of(intent) for intent in first} == {HALVES[0]}


def test_what_is_held_out_took_no_part_in_the_choice() -> None:
    jobs = choice_jobs(quick=True)
    good, bad = result(0.9), result(0.1)
    streams = {  # the first candidate is best on the first half, the second on the second
        job: good if (job.constants == STRICTER) == (job.corpus == HALVES[0]) else bad
        for job in jobs
    }
    anew = anew_jobs(streams, quick=False)
    own = {(job.corpus, job.constants) for job in anew["chosen_on_"]}
    assert own == {(HALVES[0], STRICTER), (HALVES[1], LOOSER)}
    assert {(job.corpus, job.constants) for job in anew["held_out_"]} == {
        (HALVES[0], LOOSER),
        (HALVES[1], STRICTER),
    }
    assert {job.corpus for job in anew["left_out_"]} == {CLINC150}


def test_the_choice_sees_neither_reported_shuffles_nor_shipped_values() -> None:
    assert {job.corpus for job in choice_jobs(quick=False)} == set(HALVES)
    assert not set(CHOICE_SEEDS) & set(ANEW_SEEDS)
    assert SHIPPED not in {job.constants for job in choice_jobs(quick=False)}


def test_the_choice_saves_most_within_the_bound_on_every_shuffle() -> None:
    kept, missed_once = Outcome(0.6, 0.98), Outcome(0.9, 0.96)
    assert best({STRICTER: [kept, kept], LOOSER: [kept, missed_once]}, 0.03) == STRICTER
    assert best({STRICTER: [kept], LOOSER: [Outcome(0.7, 0.97)]}, 0.03) == LOOSER


def test_where_no_candidate_keeps_the_bound_the_most_precise_is_chosen() -> None:
    outcomes = {STRICTER: [Outcome(0.5, 0.95)], LOOSER: [Outcome(0.6, 0.94)]}
    assert best(outcomes, 0.03) == STRICTER


def test_constants_are_in_force_for_a_stream_only() -> None:
    with in_force(Constants(600, 0.0, 1.0)):
        assert threshold.ServingThreshold(0.03).error_ratio == 1.0
    assert threshold.ServingThreshold(0.03).error_ratio == SHIPPED.prior_error_ratio


def test_every_judged_figure_of_the_streams_has_an_interval(corpora: dict[str, Corpus]) -> None:
    choice = {job: run_stream(corpora[job.corpus], job) for job in choice_jobs(quick=True)}
    anew, shipped = anew_jobs(choice, quick=True), shipped_jobs(quick=True)
    jobs = [*shipped, *(job for each in anew.values() for job in each)]
    streams = {job: run_stream(corpora[job.corpus], job) for job in jobs}
    streamed = streamed_figures(corpora, {job: streams[job] for job in shipped})
    parts = (streamed, held_out_figures(corpora, anew, streams))
    figures = {name for part in parts for name in part.figures}
    intervals = {name for part in parts for name in part.intervals}
    judged = {name for name in BOUNDS if "call_cut" in name or "precision" in name}
    assert judged <= figures
    assert {name for name in figures if not name.startswith("worst")} <= intervals  # one shuffle
    points = {len(x) for x, _ in noise_plot(streamed.figures).series.values()}
    assert points == {1 + len(JUDGE_ERRORS)}


def test_without_a_hit_there_is_no_precision() -> None:
    part = Part({"call_cut_03_judge_20": 0.0})
    row = next(row for row in noise_table(part).rows if row[:2] == (BANKING77, 0.2))
    assert row[2:] == (0.0, "–", "–", "–")
    curve = noise_plot(part.figures).series["hits that are right (banking77)"][1]
    assert math.isnan(curve[-1])
    assert json.dumps(stream_figures([Intent({"03": np.array([9.0, 0, 0, 0, 0])}, np.zeros(0))]))


def test_where_all_hits_are_right_the_interval_is_of_their_number() -> None:
    intents = [Intent({"03": np.array([50.0, 20, 20, 0, 0])}, np.zeros(0)) for _ in range(10)]
    interval = stream_intervals(intents, 50)["hit_precision_03"]
    assert (interval.n, interval.of, interval.high) == (200, "hits", 1.0)
    assert 0.98 < interval.low < 0.99


def test_where_all_paraphrases_are_served_the_interval_is_of_the_templates() -> None:
    def probes(template: int) -> list[Probe]:
        pairs = (Pair("same", "a", "b", same, template % 2 == 1, "") for same in (True, False))
        return [Probe(pair, pair.same or template == 0) for pair in pairs]

    found = trap_intervals([probes(template) for template in range(20)])
    assert (found["trap_kept"].n, found["trap_kept"].of) == (20, "templates")
    assert found["trap_kept"].low < 0.9
    assert found["trap_wrong_held_back"].n == 10
    assert 0 < found["trap_wrong"].high < 0.3


def test_a_variant_is_named_by_bound_repetition_and_wrong_labels() -> None:
    assert Job("", 0.01, 0).variant == "01"
    assert Job("", 0.03, 0, zipf=0.9).variant == "03_zipf"
    assert Job("", 0.03, 0, judge_errors=0.05).variant == "03_judge_5"
