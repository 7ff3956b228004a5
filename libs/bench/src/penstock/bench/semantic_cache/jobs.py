"""Which streams are run: corpora, halves of intents, bounds, shuffles, repeated traffic, and wrong
labels.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.semantic_cache.constants import CANDIDATES, Constants, Outcome, best
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.stream import Job, StreamResult

LOOSE, STRICT = 0.03, 0.01
"""The two error bounds."""
SEEDS = (20, 21, 22, 23, 24, 25)
SEEDS_OF = {BANKING77: SEEDS, CLINC150: tuple(range(20, 30))}
"""CLINC150 is shuffled ten times: at 0.03 the cut of one shuffle has a standard deviation of 0.016,
against 0.006 on Banking77.
"""
FIRST_HALF, SECOND_HALF = "banking77, first half of intents", "banking77, second half of intents"
HALVES = (FIRST_HALF, SECOND_HALF)
CHOICE_SEEDS = (0, 1, 2)
"""Shuffles of a half on which constants are chosen anew, at the looser bound."""
ANEW_SEEDS = SEEDS[:3]
"""Shuffles on which constants chosen anew are reported."""
ZIPF = 0.9
JUDGE_ERRORS = (0.02, 0.05, 0.10, 0.20)
"""Shares of wrong labels, beside none."""
VARIANT_SEEDS = {BANKING77: SEEDS[:2], CLINC150: SEEDS[:1]}


def shipped_jobs(*, quick: bool) -> list[Job]:
    """All streams with the shipped constants; in a quick run one shuffle of each."""
    plain = [
        Job(name, bound, seed)
        for name, seeds in {**SEEDS_OF, **dict.fromkeys(HALVES, ANEW_SEEDS)}.items()
        for bound in (LOOSE, STRICT)
        for seed in _some(seeds, quick=quick)
    ]
    return plain + _variant_jobs(quick=quick)


def _variant_jobs(*, quick: bool) -> list[Job]:
    """Repeated traffic at each bound, and wrong labels at the looser one."""
    loose = [
        Job(name, LOOSE, seed)
        for name, seeds in VARIANT_SEEDS.items()
        for seed in _some(seeds, quick=quick)
    ]
    repeated = [replace(job, bound=bound, zipf=ZIPF) for bound in (LOOSE, STRICT) for job in loose]
    judged = [replace(job, judge_errors=share) for share in JUDGE_ERRORS for job in loose]
    return repeated + judged


def choice_jobs(*, quick: bool) -> list[Job]:
    """Each candidate on each half of the intents."""
    return [
        Job(half, LOOSE, seed, constants=constants)
        for half in HALVES
        for constants in (CANDIDATES[:2] if quick else CANDIDATES)
        for seed in _some(CHOICE_SEEDS, quick=quick)
    ]


def chosen_anew(streams: Mapping[Job, StreamResult], halves: Collection[str]) -> Constants:
    """The choice among the candidates by the streams of some halves."""
    outcomes: dict[Constants, list[Outcome]] = {}
    for job, result in streams.items():
        if job.corpus in halves:
            outcomes.setdefault(job.constants, []).append(Outcome(result.cut, result.precision))
    return best(outcomes, LOOSE)


def anew_jobs(choice: Mapping[Job, StreamResult], *, quick: bool) -> dict[str, list[Job]]:
    """Streams with constants chosen anew, by how the names of their figures begin.

    Args:
        choice: the streams of `choice_jobs`.
        quick: one shuffle of each.
    """
    first, second = (chosen_anew(choice, {half}) for half in HALVES)
    plans = {
        "chosen_on_": {FIRST_HALF: first, SECOND_HALF: second},
        "held_out_": {FIRST_HALF: second, SECOND_HALF: first},
        "left_out_": {CLINC150: chosen_anew(choice, HALVES)},
    }
    return {
        prefix: [
            Job(name, bound, seed, constants=constants)
            for name, constants in plan.items()
            for bound in (LOOSE, STRICT)
            for seed in _some(ANEW_SEEDS, quick=quick)
        ]
        for prefix, plan in plans.items()
    }


def _some(seeds: tuple[int, ...], *, quick: bool) -> tuple[int, ...]:
    return seeds[:1] if quick else seeds


def with_halves(corpora: Mapping[str, Corpus]) -> dict[str, Corpus]:
    """The corpora, and the two halves of Banking77's intents."""
    banking = corpora[BANKING77]
    return {**corpora, **{half: _of_half(banking, half) for half in HALVES}}


def _of_half(corpus: Corpus, half: str) -> Corpus:
    places = [place for place, answer in enumerate(corpus.answers) if half_of(answer) == half]
    return Corpus(
        [corpus.texts[place] for place in places],
        [corpus.answers[place] for place in places],
        corpus.vectors[places],
    )


def half_of(intent: str) -> str:
    """The half to which an intent belongs, which means nothing."""
    return HALVES[zlib.crc32(intent.encode()) % 2]
